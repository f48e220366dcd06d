"""Can new queries search an old gallery?

A gallery was indexed by a model; a better model comes, and to index everything
anew is dear. Here the first model learns half of the classes, the second all of
them, the third all of them with more hidden units. Each is trained on its own;
with the classifier of the one before (BCT); with a basis transformation (BT²);
or with a classifier that is fixed for all of them (the d-Simplex, also with its
contrastive loss). Queries of each search the galleries of all.

Queries and gallery are images that no model learnt from, of all classes, those
that the first model never saw included.

  python -m experiments.compatible --config=configs/compatible.py:digits

Hardware, minutes and the numbers to expect are in the config's docstring.
"""

import functools
from typing import Any

import ml_collections

from experiments import _main
from experiments._compatible import report, settings
from experiments._run import console, records

NAME = 'compatible'


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains chains of models, lets each search, and writes what came out.

  Args:
    config: see ``configs/compatible.py``.
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
  console.say(
    f'{config.seeds} seeds of {len(config.stages.classes)} models, on '
    f'{list(config.stages.classes)} classes; {len(setting.images.train[1])} '
    f'training images, {config.held_out} in the gallery, '
    f'{len(setting.images.test[1])} queries'
  )
  out.begin()

  # Train one chain after the other; each model searches all galleries.
  results: dict[str, Any] = {}
  alone: dict[str, settings.Seen] = {}
  for method in config.methods:
    train = functools.partial(settings.train, setting, method, alone)
    stages = out.arrays(method, train)
    alone = alone or stages
    measure = functools.partial(settings.measure, setting, method, stages)
    results[method] = out.values(f'{method}.retrieval', measure)

  # Write figures, a table and the record.
  summary = report.summarise(config, results)
  for row in summary['rows']:
    out.log(**row)
  report.draw_pairs(out.path / 'pairs.png', summary)
  report.draw_matrices(out.path / 'matrices.png', summary)
  report.show(f'{NAME} {config.variant}', summary)
  return out.finish({**summary, 'results': results})


if __name__ == '__main__':
  _main.main(NAME, run)
