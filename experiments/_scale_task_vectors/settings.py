"""Suite and settings of a run, and checks of its config."""

from collections.abc import Collection
from typing import Any

import ml_collections
import numpy as np

from experiments._run import checks
from experiments._scale_task_vectors import (
  few_shot,
  merging,
  task_negation,
  test_time,
)
from experiments._shared import suites
from wsl import tree

METHODS: dict[str, Collection[str]] = {
  'addition': tuple(merging.METHODS['addition']),
  'negation': tuple(task_negation.METHODS),
  'few_shot': few_shot.METHODS,
  'test_time': (
    *merging.METHODS['test_time'],
    *test_time.METHODS,
  ),
  'partition': few_shot.REFERENCES,
}


def load(config: ml_collections.ConfigDict) -> suites.Suite:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  suite = suites.load(config)
  _check(suite)
  return suite


def describe(suite: suites.Suite) -> str:
  """Returns suite and settings in one line."""
  return f'{suites.describe(suite)}; {", ".join(suite.config.settings)}'


def _check(suite: suites.Suite) -> None:
  """Checks settings, methods and numbers."""
  config = suite.config
  checks.choices('settings', config.settings, METHODS)
  for setting in config.settings:
    field = f'{setting}.methods'
    checks.choices(field, config[setting].methods, METHODS[setting])
  if len(suite.tasks.names) < 2:
    raise ValueError('tasks: expected two or more, to learn from each other')
  _check_tangent(config)
  checks.choice('negation.control', config.negation.control, config.tasks)
  for field in ('few_shot', 'partition'):
    if not config[field].shots:
      raise ValueError(f'{field}.shots: none given')
  checks.sizes(_limits(suite))


def _check_tangent(config: Any) -> None:
  """Checks that methods of the tangent space have experts."""
  for name in config.addition.methods:
    method = merging.METHODS['addition'][name]
    if method.vectors == 'tangent' and not config.tangent.epochs:
      raise ValueError(
        f"addition.methods: '{name}' needs experts of the tangent space: "
        'tangent.epochs=1 or more'
      )


def _limits(suite: suites.Suite) -> dict[str, tuple[Any, float, float | None]]:
  """Returns (value, least, most) by field."""
  config, tasks = suite.config, suite.tasks
  count, held = tasks.train.y.shape[1], tasks.validation.y.shape[1]
  few, target = config.few_shot, config.test_time.target
  adamerging, negation = config.test_time.adamerging, config.negation
  split = config.partition
  fresh = tasks.train.y[:, config.base.examples :]
  least = min(int(np.unique(y, return_counts=True)[1].min()) for y in fresh)
  if not split.cells:
    raise ValueError('partition.cells: none given')
  cells = tuple(k for k in split.cells if k != 'full')
  for k in cells:
    if not isinstance(k, int):
      hint = tree.nearest(str(k), ['full'])
      raise ValueError(
        f"partition.cells: no '{k}'{hint}: expected integers, or 'full'"
      )
  return {
    'tangent.epochs': (config.tangent.epochs, 0, None),
    'addition.epochs': (config.addition.epochs, 1, None),
    'addition.batch_size': (config.addition.batch_size, 1, held),
    'negation.batch_size': (negation.batch_size, 1, held),
    'negation.floor': (negation.floor, 0, 1),
    'negation.every': (negation.every, 1, negation.steps),
    'few_shot.shots': (tuple(few.shots), 1, least),
    'few_shot.cells': (few.cells, 1, None),
    'few_shot.batch_size': (few.batch_size, 1, _images(few, tasks)),
    'test_time.adamerging.steps': (adamerging.steps, 1, None),
    'test_time.adamerging.batch_size': (adamerging.batch_size, 1, count),
    'test_time.target.epochs': (target.epochs, 1, None),
    'test_time.target.batch_size': (
      target.batch_size,
      3,
      tasks.test.y.shape[1],
    ),
    'partition.cells': (cells, 1, None),
    'partition.shots': (tuple(split.shots), 1, least),
    'partition.batch_size': (split.batch_size, 1, _images(split, tasks)),
  }


def _images(config: Any, tasks: Any) -> int:
  """Returns the number of images of a run, with repetitions."""
  return max(config.shots, default=0) * len(np.unique(tasks.train.y[0]))
