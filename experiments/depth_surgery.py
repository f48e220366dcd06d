"""Which layer programs are worth their compute?

  python -m experiments.depth_surgery --config=configs/depth_surgery.py:python

A decoder-only transformer of bytes is grown, cut and searched by programs of
``wsl.surgery``. The loss is in bits for each byte of held-out text.

Growth: a shallow network is trained with a share of the budget, made deeper by
stacking, by repeating each block, or by identity blocks, and trained with the
rest. It is compared with deep networks that are trained from scratch with the
same compute, at several budgets.

Cuts: blocks of the deep network are removed, shared or run in parallel, before
and after a short training. Networks of as many blocks are compared at equal
compute, and networks that share blocks at full depth beside them.

Paths: a tree search finds, for each window, a path through the blocks that
predicts the last byte. It knows the label, so it says which paths exist, not
what can be deployed; the same search for a wrong byte is the control.
"""

import functools
from typing import Any

from experiments import _main
from experiments._depth_surgery import (
  cuts,
  figures,
  growth,
  paths,
  report,
  settings,
)
from experiments._run import experiment, records

NAME = 'depth_surgery'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Grows, cuts and searches networks of one family."""
  config = setting.config

  # Train deep networks from scratch, and grown ones, at each budget.
  deep: dict[int, Any] = {}
  results: dict[str, Any] = {'growth': {}}
  for budget in config.budgets:
    deep[budget] = out.arrays(
      f'scratch.{budget}', functools.partial(growth.scratch, setting, budget)
    )
    results['growth'][f'{budget}'] = out.values(
      f'growth.{budget}',
      functools.partial(growth.measure, setting, budget, deep[budget]),
    )
  trained = deep[max(config.budgets)]

  # Cut the deep networks of the largest budget, and train them briefly.
  results['cuts'] = out.values('cuts', lambda: cuts.measure(setting, trained))

  # Search a path for each window, for its byte and for a wrong one.
  results['paths'] = out.values(
    'paths', lambda: paths.measure(setting, trained)
  )

  # Write figures, tables and the record.
  summary = report.summarise(setting, results)
  out.log(*summary['rows'])
  figures.growth(out.path / 'growth.png', summary)
  figures.cuts(out.path / 'cuts.png', summary)
  figures.paths(out.path / 'paths.png', summary)
  report.show(out.title, summary)
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
