"""Is a deep network better trained whole, or module by module?

  python -m experiments.assemble --config=configs/assemble.py:digits

Deep Incubation trains a meta model with one block for each module, then every
module alone inside the meta model, then the assembled network for a few steps.
It is compared with end-to-end training at equal compute, for several budgets
and for smaller training sets, where its authors report an advantage. Compute is
the number of floating-point operations of the matrix products, summed over the
jobs of all modules; the compute of the longest job is reported too.

A zoo of trained networks is then partitioned into blocks that correspond by the
similarity of their features, and reassembled under a budget (DeRy): selected by
a score without training, by accuracy, or at random; evaluated before and after
fine-tuning; and compared with the same network trained from scratch.
"""

import functools
from typing import Any

from experiments import _main
from experiments._assemble import dery, incubation, report, settings
from experiments._run import experiment, records

NAME = 'assemble'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains networks whole and in modules, and reassembles a zoo."""
  config = setting.config

  # Draw the initial weights of both methods.
  starts = out.arrays('starts', lambda: incubation.starts(setting))

  # Train whole and in modules at each budget; at the last, on all fractions.
  results: dict[str, dict[str, Any]] = {}
  for method, train in (
    ('end_to_end', incubation.end_to_end),
    ('incubation', incubation.incubation),
  ):
    results[method] = {}
    for budget in config.budgets:
      fractions = tuple(config.fractions) if budget == 1 else (1.0,)
      job = incubation.Job(starts, budget, fractions)
      compute = functools.partial(train, setting, job)
      part = f'{method}.{budget:g}'
      results[method][f'{budget:g}'] = out.values(part, compute)

  # Partition a zoo, and reassemble it.
  zoo: list[dict[str, Any]] = []
  if config.zoo.seeds:
    networks = out.arrays('zoo', lambda: dery.trained(setting))
    measure = functools.partial(dery.measure, setting, networks)
    zoo = out.values('reassembly', lambda: {'seeds': measure()})['seeds']

  # Write a figure, tables and the record.
  summary = report.summarise(config, results, zoo)
  out.log(*summary['budgets'], *summary['data'], *summary['zoo'])
  report.draw(out.path / 'assemble.png', summary)
  report.show(out.title, summary)
  results['zoo'] = {'seeds': zoo}
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
