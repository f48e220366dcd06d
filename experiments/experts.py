"""Are experts a better use of compute, and how far can they be merged?

  python -m experiments.experts --config=configs/experts.py:python

A dense language model of bytes, the base, is trained on a mixture of domains.
For several budgets it is continued; or its perceptrons are copied to experts,
which are continued (Sparse Upcycling, Komatsuzaki et al., 2022,
arXiv:2212.05055); or a model with experts is trained from scratch, for the
compute of both. Compute is the number of floating-point operations of the
matrix products of all training steps.

The experts of the largest budget are then merged by the statistics of their
routing (M-SMoE, Li et al., 2023, arXiv:2310.01334), with each of its parts left
out: the alignment of units, weights by usage, groups by router logits, one
ranking of all layers. Dropping the least used experts is the alternative.
Merged and dropped experts are also trained further. Every claim is judged in
every seed.
"""

import functools
from typing import Any

from experiments import _main
from experiments._experts import measuring, report, settings, training
from experiments._run import experiment, records

NAME = 'experts'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains dense and sparse models, merges and drops experts."""
  config = setting.config

  # Train a base; continue it, upcycle it, and train experts from scratch.
  base = out.arrays('base', lambda: training.base(setting))
  bits: dict[str, dict[str, Any]] = {'dense': {}, 'upcycled': {}, 'scratch': {}}
  largest = {}
  for budget in config.budgets:
    for method, train in (
      ('dense', functools.partial(training.dense, setting, base)),
      ('upcycled', functools.partial(training.upcycled, setting, base)),
      ('scratch', functools.partial(training.scratch, setting)),
    ):
      part = f'{method}.{budget:g}'
      found = out.arrays(part, functools.partial(train, budget))
      largest[method] = found
      model = setting.dense if method == 'dense' else setting.exact
      bits[method][f'{budget:g}'] = training.bits(
        setting, model, found, 'test'
      ).tolist()

  # Merge and drop the experts of the largest budget; train them further.
  merges, tuned = {}, {}
  for kind in settings.KINDS:
    measure = functools.partial(measuring.measure, setting, kind, largest[kind])
    merges[kind] = out.values(f'merges.{kind}', measure)
    tune = functools.partial(measuring.tune, setting, kind, largest[kind])
    tuned[kind] = out.values(f'tuned.{kind}', tune)

  # Write figures, tables and the record.
  start = training.bits(setting, setting.dense, base, 'test').tolist()
  summary = report.summarise(setting, start, bits, merges, tuned)
  out.log(*summary['rows'])
  report.draw_budgets(out.path / 'budgets.png', summary)
  report.draw_merges(out.path / 'merges.png', summary)
  report.show(out.title, summary)
  return out.finish(summary)


if __name__ == '__main__':
  _main.main(NAME, run)
