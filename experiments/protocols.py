"""Which merges pass the published protocols, and do their claims hold here?

  python -m experiments.protocols --config=configs/protocols.py:digits

MergeBench: all experts are merged, hyperparameters are chosen on validation
images, and a merge is judged by its score relative to the experts, by what it
forgets on other tasks, and by the seconds of its search. What Matters at Scale:
random subsets of 2 to 8 experts, on their own tasks and on tasks without an
expert, for models of several sizes. In-the-Wild: random subsets of a pool of
unlike experts with overlapping tasks and wrong labels: how often a merge is
above the base, and its gain over its best member.

The statistics are functions of tables of scores, for any pool of experts:
``merge_bench``, ``at_scale`` and ``in_the_wild``.
"""

import functools
from typing import Any

from experiments import _main
from experiments._protocols import figures, pools, report, runs, settings
from experiments._run import experiment, records
from experiments._shared import protocols

NAME = 'protocols'
draw_members = protocols.draw_members
merge_bench = protocols.merge_bench
at_scale = protocols.at_scale
in_the_wild = protocols.in_the_wild


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains pools of experts of every size, and runs the three protocols."""
  tables: dict[str, dict[str, Any]] = {}
  for size, suite in setting.suites.items():
    # Train a base, an expert for each task, and a pool of unlike experts.
    special, wild = pools.train(out, setting, size, suite)

    # Measure bases and experts, and the merges of every method.
    tables[size] = {
      'bounds': out.values(
        f'{size}.bounds', functools.partial(pools.bounds, suite, special, wild)
      )
    }
    for protocol, methods in setting.methods.items():
      pool = wild if protocol == settings.WILD else special
      measure = functools.partial(runs.measure, setting, protocol, suite, pool)
      tables[size][protocol] = {
        method.name: out.values(
          f'{size}.{protocol}.{method.name}', functools.partial(measure, method)
        )
        for method in methods
      }

  # Compute the statistics; write figures, tables and the record.
  summary = report.summarise(setting, tables)
  out.log(*summary['rows'])
  figures.bench(out.path / 'merge_bench.png', summary)
  figures.scale(out.path / 'at_scale.png', summary)
  figures.wild(out.path / 'in_the_wild.png', summary)
  report.show(out.title, summary)
  return out.finish(summary)


if __name__ == '__main__':
  _main.main(NAME, run)
