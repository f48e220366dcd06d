"""Do niches and complementary mates evolve better networks than other searches?

  python -m experiments.evolve --config=configs/evolve.py:digits

M2N2 (Abrantes, Lange and Tang, 2025, arXiv:2508.16204) evolves an archive of
networks: they compete for the images that they classify, a parent is mated to
one that is right where it is wrong, and two networks are joined at a random
entry. Two starts, as in the paper: from scratch, two random networks and
mutations; and from two experts, trained on one half of the digits each, without
mutations, so that only merges can improve.

The methods have the same number of forward passes over the training images. In
the ablations a part of M2N2 is left out; ``genetic`` is the archive without
niches and attraction; ``cmaes`` is CMA-ES with a diagonal covariance, from
scratch only; ``line`` is the best point on the line between both networks. Each
network is chosen by training images and tested on others.
"""

import functools
from typing import Any

from experiments import _main
from experiments._evolve import report, runs, settings
from experiments._run import experiment, records

NAME = 'evolve'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Evolves networks by every method, from every start."""
  results: dict[str, dict[str, Any]] = {}
  for start in setting.config.starts:
    parents = out.arrays(
      start, functools.partial(settings.parents, setting, start)
    )
    results[start] = {}
    for method in runs.of(setting.config, start):
      results[start][method] = out.values(
        f'{start}.{method}',
        functools.partial(runs.measure, setting, start, method, parents),
      )

  # Write a figure, a table and the record.
  summary = report.summarise(results)
  out.log(*summary['rows'])
  report.draw(out.path / 'curves.png', results)
  report.show(out.title, summary)
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
