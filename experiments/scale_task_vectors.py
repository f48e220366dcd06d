"""What does it give to learn a coefficient for each block of a task vector?

A base encoder, a head for each task, and an expert of each task are trained as
in ``merge_vision``. Then coefficients on the experts' vectors are searched, or
learned by gradient, at several granularities and in five settings:

addition   one model of all tasks, taught by labelled validation images
negation   one task forgotten while a control task is kept, taught alike
few_shot   a target from 1 .. 16 training images of each class and the other
           tasks' vectors, against a probe, LoRA and fine-tuning
test_time  the same from unlabelled test images, for all tasks (AdaMerging) or
           one (entropy, UFM): transductive, and marked so in the record
partition  as few_shot, each leaf cut into K random cells: how many coefficients
           are worth having

The record says of each of the paper's claims whether it holds here.

  python -m experiments.scale_task_vectors \
    --config=configs/scale_task_vectors.py:digits

Hardware, minutes and the numbers to expect are in the config's docstring.
"""

import functools
from typing import Any

import ml_collections
import numpy as np

from experiments import _main
from experiments._run import console, records
from experiments._scale_task_vectors import (
  config_check,
  few_shot,
  figures,
  leaf_order,
  merging,
  paper_claims,
  report,
  settings,
  task_negation,
  test_time,
)
from experiments._shared import suites

NAME = 'scale_task_vectors'


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains, scales, measures, and writes what came out.

  Args:
    config: see ``configs/scale_task_vectors.py``.
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
  suite = suites.load(config)
  config_check.check(suite)
  console.say(f'{suites.describe(suite)}; {", ".join(config.settings)}')
  out.begin()

  # Train a base and experts; then each setting, one method after the other.
  models, bounds = settings.load(
    suite, out, tangent=bool(config.tangent.epochs)
  )
  results = {
    setting: measure(suite, models, bounds, out, setting)
    for setting in config.settings
  }

  # Judge the claims; write figures, tables and the record.
  rows = report.rows(suite, bounds, results)
  for row in rows:
    out.log(**row)
  claims = paper_claims.judge(bounds, results)
  blocks = leaf_order.order(suite)
  figures.draw(out.path, suite, blocks, bounds, results)
  report.show(f'{NAME} {config.variant}', rows, claims)
  return out.finish(
    {
      'tasks': list(suite.tasks.names),
      'blocks': blocks,
      'bounds': bounds,
      'transductive': {name: name == 'test_time' for name in results},
      'results': results,
      'rows': rows,
      'claims': claims,
    }
  )


def measure(
  suite: suites.Suite,
  models: settings.Models,
  bounds: dict[str, Any],
  out: records.Run,
  setting: str,
) -> dict[str, Any]:
  """Runs the methods of one setting; each is a part that is done once.

  Returns:
    What each method found, by its name.
  """
  trained: dict[str, Any]
  if setting == 'partition':
    trained = few_shot.partitions(suite, models)
  elif setting == 'few_shot':
    methods = suite.config.few_shot.methods
    trained = few_shot.methods(suite, models, methods)
  else:
    trained = dict.fromkeys(suite.config[setting].methods)
  found = {}
  for name, what in trained.items():
    if what is not None:
      compute = functools.partial(
        few_shot.run, suite, models, setting, name, what
      )
    elif setting == 'negation':
      compute = functools.partial(task_negation.run, suite, models, name)
    elif name in test_time.METHODS:
      compute = functools.partial(test_time.run, suite, models, name)
    else:
      experts = np.asarray(bounds['experts']['validation'])
      compute = functools.partial(
        merging.run, suite, models, experts, setting, name
      )
    found[name] = out.values(f'{setting}.{name}', compute)
  return found


if __name__ == '__main__':
  _main.main(NAME, run)
