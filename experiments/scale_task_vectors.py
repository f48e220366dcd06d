"""What is gained by a learned coefficient for each block of a task vector?

  python -m experiments.scale_task_vectors \

A base encoder, a head for each task, and an expert of each task are trained as
in ``merge_vision``. Coefficients of the experts' vectors are then searched, or
learned by gradient descent, at several granularities and in five settings:

addition   one model for all tasks, from labelled validation images
negation   unlearn one task and keep a control task, from the same images
few_shot   a target task from 1 .. 16 training images of each class and the
           vectors of the other tasks, against a probe, LoRA and fine-tuning
test_time  unlabelled test images, for all tasks (AdaMerging) or one (entropy,
           UFM): transductive, and marked so in the record
partition  as few_shot, with each leaf partitioned into K random cells: how
           many coefficients help

The record states for each claim of the paper whether it holds here.
    --config=configs/scale_task_vectors.py:digits
"""

import functools
from typing import Any

import numpy as np

from experiments import _main
from experiments._run import experiment, records
from experiments._scale_task_vectors import (
  few_shot,
  figures,
  leaf_order,
  merging,
  paper_claims,
  report,
  settings,
  task_negation,
  task_vectors,
  test_time,
)
from experiments._shared import suites

NAME = 'scale_task_vectors'


@experiment.body(NAME, settings.load, settings.describe, on_mesh=True)
def run(out: records.Run, suite: suites.Suite) -> dict[str, Any]:
  """Trains a base and experts, and scales their task vectors."""
  suite, config = suite._replace(mesh=out.mesh), suite.config

  # Train a base and experts; then each setting, one method after the other.
  models, bounds = task_vectors.load(
    suite, out, tangent=bool(config.tangent.epochs)
  )
  results = {
    setting: measure(suite, models, bounds, out, setting)
    for setting in config.settings
  }

  # Judge the claims; write figures, tables and the record.
  rows = report.rows(suite, bounds, results)
  out.log(*rows)
  claims = paper_claims.judge(bounds, results)
  blocks = leaf_order.order(suite)
  figures.draw(out.path, suite, blocks, bounds, results)
  report.show(out.title, rows, claims)
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
  models: task_vectors.Models,
  bounds: dict[str, Any],
  out: records.Run,
  setting: str,
) -> dict[str, Any]:
  """Runs the methods of one setting, each as a part of the run.

  Returns:
    The values that each method returns, by its name.
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
  for name, recipe in trained.items():
    if recipe is not None:
      compute = functools.partial(
        few_shot.run, suite, models, setting, name, recipe
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
