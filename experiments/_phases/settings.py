"""Config and data of a zoo over temperature and load."""

from collections.abc import Callable
import functools
import itertools
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from experiments._run import checks
from experiments._shared import nets_training, one_task
from wsl import data, types


class Setting(NamedTuple):
  """Config and data of a run.

  Attributes:
    config: of the run.
    train: normalised training images and labels, some of them random.
    test: normalised test images and labels.
    classes: the number of classes.
  """

  config: ml_collections.ConfigDict
  train: nets_training.Examples
  test: nets_training.Examples
  classes: int


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  _check(config)
  task = one_task.read(config)
  scale = one_task.statistics(task.train)
  classes = int(task.train.y.max()) + 1
  count = min(config.examples, len(task.train.y))
  checks.sizes(
    {
      'batch_size': (config.batch_size, 1, count),
      'hessian.examples': (config.hessian.examples, 1, count),
      'curve.batch_size': (config.curve.batch_size, 1, count),
    }
  )
  rng = np.random.default_rng(config.seed)
  rows = rng.permutation(len(task.train.y))[:count]
  labels = task.train.y[rows]
  wrong = rng.random(count) < config.noise
  labels = np.where(wrong, rng.integers(classes, size=count), labels)
  return Setting(
    config,
    one_task.normal(data.Split(task.train.x[rows], labels), *scale),
    one_task.normal(task.test, *scale),
    classes,
  )


def _check(config: ml_collections.ConfigDict) -> None:
  """Checks the numbers that do not depend on the data."""
  checks.sizes(
    {
      'seeds': (config.seeds, 2, None),
      'widths': (config.widths, 1, None),
      'rates': (config.rates, 1e-6, 1e3),
      'epochs': (config.epochs, 1, None),
      'examples': (config.examples, 1, None),
      'noise': (config.noise, 0, 1),
      'at_once': (config.at_once, 1, None),
      'hessian.steps': (config.hessian.steps, 1, None),
      'hessian.probes': (config.hessian.probes, 1, None),
      'plane.examples': (config.plane.examples, 1, None),
      'plane.grid': (config.plane.grid, 2, None),
      'curve.bends': (config.curve.bends, 1, None),
      'curve.points': (config.curve.points, 3, None),
      'curve.epochs': (config.curve.epochs, 1, None),
      'phases.barrier': (config.phases.barrier, 0, None),
    }
  )
  for field in ('widths', 'rates'):
    values = list(config[field])
    if values != sorted(set(values)):
      raise ValueError(f'{field}={values}: expected different, growing numbers')


def pairs(config: ml_collections.ConfigDict) -> np.ndarray:
  """Returns all pairs of seeds, ``[P, 2]``."""
  return np.array(list(itertools.combinations(range(config.seeds), 2)))


def compiled(
  setting: Setting, function: Callable[..., types.Tree]
) -> Callable[..., types.Tree]:
  """Compiles a function of (setting, ...) with the images as arguments.

  Images in a closure are constants of the program: XLA computes with them while
  it compiles, which takes minutes.
  """

  @jax.jit
  def run(train: Any, test: Any, *operands: Any) -> types.Tree:
    return function(setting._replace(train=train, test=test), *operands)

  return functools.partial(run, setting.train, setting.test)


def describe(setting: Setting) -> str:
  """Returns the size of the zoo and its training in one line."""
  config = setting.config
  count = len(config.widths) * len(config.rates) * config.seeds
  return (
    f'{count} networks: widths {list(config.widths)}, learning rates '
    f'{list(config.rates)}, {config.seeds} seeds; {len(setting.train[1])} '
    f'images, {100 * config.noise:g} % random labels, {config.epochs} epochs'
  )
