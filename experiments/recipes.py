"""Which search finds the best recipe of a merge with few evaluations?

  python -m experiments.recipes --config=configs/recipes.py:digits

A recipe is any chain of functions of ``wsl.merge`` and ``wsl.scale``, such as
drop, trim, elect and combine, with numbers that are searched: densities, rates,
a weight for each task, and the coefficient of the result. The experts are those
of ``merge_vision``. Random search, CMA-ES and a grid have the same number of
evaluations on validation images; the points that a search asks for at once are
one compiled call (``mesh.map_candidates``), and an interrupted search continues
after its last call. Test images measure the best point so far.
"""

import functools
from typing import Any

from experiments import _main
from experiments._recipes import report, searches, settings
from experiments._run import experiment, records
from experiments._shared import suite_training

NAME = 'recipes'


@experiment.body(NAME, settings.load, settings.describe, on_mesh=True)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains a base and experts, and searches the numbers of every recipe."""
  suite, config = setting.suite._replace(mesh=out.mesh), setting.suite.config

  # Train a base, and an expert for each task.
  models = suite_training.models(out, suite)

  # Search each recipe by every method, one seed after the other.
  results: dict[str, dict[str, Any]] = {}
  for name, recipe in setting.recipes.items():
    accuracy = searches.accuracy_of(recipe, suite)
    results[name] = {
      method: out.values(
        f'{name}.{method}',
        functools.partial(
          searches.measure, out, suite, recipe, method, models, accuracy
        ),
      )
      for method in config.searches
    }

  # Write figures, a table and the record.
  summary = report.summarise(setting, results)
  out.log(*summary['rows'])
  report.curves(out.path / 'curves.png', setting, results)
  report.maps(out.path / 'maps.png', setting, results)
  report.show(out.title, setting, summary)
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
