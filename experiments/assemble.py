"""Is a deep network better trained whole, or module by module?

Deep Incubation trains a meta model of one block for each module, then every
module alone in the meta model's frame, then the assembled network for a little
while. It is compared with training the whole network, at equal compute, for
several budgets, and with fewer training images, where its authors found it
better. Compute is counted from the products of a step: the jobs of all modules
count, and what they would take side by side stands beside.

A zoo of trained networks is then cut into blocks with counterparts by the
similarity of their features, and reassembled under a budget (DeRy): chosen by a
score that needs no training, by accuracy, and at random; as it is and after a
few steps; and against the same network trained from nothing.

  python -m experiments.assemble --config=configs/assemble.py:digits

Hardware, minutes and the numbers to expect are in the config's docstring.
"""

import functools
from typing import Any

import ml_collections

from experiments import _main
from experiments._assemble import dery, incubation, report, settings
from experiments._run import console, records

NAME = 'assemble'


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains networks both ways, reassembles a zoo, writes what came out.

  Args:
    config: see ``configs/assemble.py``.
    workdir: folder of this run; parts that are finished there are not
      computed again.

  Returns:
    The record, as in ``record.json``.

  Raises:
    ValueError: naming what is wrong in the config, before anything is trained.
    FileNotFoundError: if the data is missing.
  """
  out = records.Run(NAME, config, workdir)
  if record := out.finished():
    return record
  setting = settings.load(config)
  dery.check(setting)
  console.say(settings.describe(setting))
  out.begin()

  # What both begin from.
  starts = out.arrays('starts', lambda: incubation.starts(setting))

  # Whole or in modules, at each budget; all fractions of the data at the last.
  results: dict[str, dict[str, Any]] = {}
  for method, train in (
    ('end_to_end', incubation.end_to_end),
    ('incubation', incubation.incubation),
  ):
    results[method] = {}
    for budget in config.budgets:
      fractions = tuple(config.fractions) if budget == 1 else (1.0,)
      compute = functools.partial(train, setting, starts, budget, fractions)
      part = f'{method}.{budget:g}'
      results[method][f'{budget:g}'] = out.values(part, compute)

  # A zoo, cut and put together.
  zoo: list[dict[str, Any]] = []
  if config.zoo.seeds:
    networks = out.arrays('zoo', lambda: dery.trained(setting))
    measure = functools.partial(dery.measure, setting, networks)
    zoo = out.values('reassembly', lambda: {'seeds': measure()})['seeds']

  # Write a figure, tables and the record.
  summary = report.summarise(config, results, zoo)
  for row in (*summary['budgets'], *summary['data'], *summary['zoo']):
    out.log(**row)
  report.draw(out.path / 'assemble.png', summary)
  report.show(f'{NAME} {config.variant}', summary)
  results['zoo'] = {'seeds': zoo}
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
