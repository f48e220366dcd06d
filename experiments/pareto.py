"""How good is the Pareto front of merges after how few evaluations?

  python -m experiments.pareto --config=configs/pareto.py:digits

A merge of experts trades the errors of their tasks against each other. MAP (Li
et al., 2024, arXiv:2406.07529) fits a quadratic to the errors of some sampled
coefficients, and finds the front on it; MM-MO (Li et al., 2025) chooses each
batch of merges by Gaussian processes, expected hypervolume improvement, mutants
of the best points, and a screening by Fisher information. Its search is also
that of the paper: the densities and weights of DARE-TIES.

The protocol of merge_vision. Every search has the same number of evaluations of
all tasks on validation images; MAP uses a third of them to check points of its
front. The measure is the hypervolume of the evaluated merges between their
errors and those of the base, relative to that of a grid of coefficients; MAP
and MM-MO select points by this measure.
"""

import functools
from typing import Any

from experiments import _main
from experiments._pareto import report, runs, settings
from experiments._run import experiment, records
from experiments._shared import suite_training

NAME = 'pareto'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains experts, and searches the front of each group of tasks."""
  suite = setting.suite

  # Train a base, and an expert for each task.
  models = suite_training.models(out, suite)

  # Evaluate a grid, then run every search in every group.
  grids: dict[str, Any] = {}
  results: dict[str, dict[str, Any]] = {}
  for group, tasks in setting.groups.items():
    grids[group] = grid = out.values(
      f'{group}.grid',
      functools.partial(runs.exhaustive, setting, group, models),
    )
    results[group] = {
      method: out.values(
        f'{group}.{method}',
        functools.partial(
          runs.measure, setting, out, group, method, models, grid
        ),
      )
      for method in suite.config.methods
    }
    if len(tasks) > 2:
      results[group]['nested MAP'] = out.values(
        f'{group}.nested',
        functools.partial(runs.nested, setting, out, group, models),
      )

  # Write two figures, a table and the record.
  summary = report.summarise(grids, results)
  out.log(*summary['rows'])
  searched = {
    group: {k: v for k, v in methods.items() if 'share' in v}
    for group, methods in results.items()
  }
  report.draw_curves(out.path / 'curves.png', searched, setting.budgets)
  report.draw_fronts(out.path / 'fronts.png', grids, searched)
  report.show(out.title, summary, setting.budgets)
  return out.finish({**summary, 'grids': grids, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
