"""Can a new model search a gallery that an old model indexed?

  python -m experiments.compatible --config=configs/compatible.py:digits

Indexing a gallery again for every new model is expensive. Here the first model
learns half of the classes, the second all of them, and the third all of them
with more hidden units. Each is trained independently; with the classifier of
its predecessor (BCT); with a basis transformation (BT²); or with one fixed
classifier for all (the d-Simplex, also with its contrastive loss). The queries
of each model search the galleries of all.

Queries and gallery are images of all classes that no model is trained on; they
include classes that the first model has not learned.
"""

import functools
from typing import Any

from experiments import _main
from experiments._compatible import report, settings
from experiments._run import experiment, records

NAME = 'compatible'


@experiment.body(NAME, settings.load, settings.describe)
def run(out: records.Run, setting: settings.Setting) -> dict[str, Any]:
  """Trains chains of models, and searches the gallery of each."""
  config = setting.config

  # Train one chain after the other; each model searches all galleries.
  results: dict[str, Any] = {}
  alone: dict[str, settings.Features] = {}
  for method in config.methods:
    train = functools.partial(settings.train, setting, method, alone)
    stages = out.arrays(method, train)
    alone = alone or stages
    measure = functools.partial(settings.measure, setting, method, stages)
    results[method] = out.values(f'{method}.retrieval', measure)

  # Write figures, a table and the record.
  summary = report.summarise(config.stages.classes, results)
  out.log(*summary['rows'])
  report.draw_pairs(out.path / 'pairs.png', summary)
  report.draw_matrices(out.path / 'matrices.png', summary)
  report.show(out.title, summary)
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
