"""Pairs of networks that differ in their seed alone, and their measures.

S pairs are an axis of every leaf: the networks of a run are ``[S, 2, ...]``. A
model's parameters are all its variables, running moments included.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._shared import nets, nets_training
from wsl import data, landscape, train, tree, types


class Setting(NamedTuple):
  """What every stage needs.

  Attributes:
    config: the run's.
    train: normalised images and their labels.
    test: the same.
    net: the network.
    measure: maps parameters to loss and error on both splits, ``{'train':
      {'loss': [], 'error': []}, 'test': ...}``.
    walk: maps (a, b) to a ``landscape.Path`` of these.
  """

  config: ml_collections.ConfigDict
  train: nets_training.Examples
  test: nets_training.Examples
  net: nets.Net
  measure: Callable[[types.Params], types.Tree]
  walk: Callable[[types.Params, types.Params], landscape.Path]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and makes the model.

  Args:
    config: see ``configs/align_barrier.py``.

  Returns:
    The setting.

  Raises:
    ValueError: naming what is wrong in the config.
    FileNotFoundError: if the data is missing.
  """
  module = nets.find(config.model)
  task = _read(config)
  mean = float(task.train.x.mean(dtype=np.float64))
  std = float(task.train.x.std(dtype=np.float64))
  fit, test = (
    (
      jnp.asarray((_images(split.x) - mean) / std, jnp.float32),
      jnp.asarray(split.y, jnp.int32),
    )
    for split in task
  )
  _check_sizes(config, len(fit[1]))
  net = nets.build(module(**config.model.arguments), jnp.zeros_like(fit[0][:1]))
  splits = {'train': fit, 'test': test}  # arguments: no program holds the data
  measure = functools.partial(_measure, net.apply_fn, config.evaluation)
  walk = lambda splits, a, b: landscape.path(
    functools.partial(measure, splits), a, b, points=config.points
  )
  return Setting(
    config,
    **splits,
    net=net,
    measure=functools.partial(jax.jit(measure), splits),
    walk=functools.partial(jax.jit(walk), splits),
  )


def _measure(
  apply_fn: Callable[..., types.Array],
  evaluation: ml_collections.ConfigDict,
  splits: dict[str, nets_training.Examples],
  params: types.Params,
) -> types.Tree:
  found = {}
  for name, split in splits.items():
    means = train.evaluate(
      apply_fn, params, split, batch_size=evaluation.batch_size
    )
    found[name] = {'loss': means.loss, 'error': 1 - means.accuracy}
  return found


def _read(config: ml_collections.ConfigDict) -> data.Task:
  if config.data == 'digits':
    return data.digits()
  try:
    found = data.folder(config.data, tasks=[config.task])
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{error}: --config.data=PATH') from None
  return found[config.task]


def _images(x: np.ndarray) -> np.ndarray:
  x = x.astype(np.float64)
  return x[..., None] if x.ndim == 3 else x


def _check_sizes(config: ml_collections.ConfigDict, count: int) -> None:
  training, few = config.training, config.statistics.examples
  limits = {
    'pairs': (config.pairs, None),
    'evaluation.batch_size': (config.evaluation.batch_size, None),
    'statistics.examples': (few, count),
    'statistics.batch_size': (config.statistics.batch_size, few),
  }
  for name, (value, most) in limits.items():
    if value < 1 or (most is not None and value > most):
      wanted = '1 or more' if most is None else f'1 .. {most}'
      raise ValueError(f'{name}={value}: expected {wanted}')
  for name, points in (
    ('points', config.points),
    ('repair.points', config.repair.points),
  ):
    if points < 3 or points % 2 == 0:
      raise ValueError(
        f'{name}={points}: expected an odd number, 3 or more: the middle of '
        'the path is one of them'
      )
  if not 0 <= config.threshold <= 1:
    raise ValueError(f'threshold={config.threshold}: expected 0 .. 1')
  nets_training.check(training, count)


def describe(setting: Setting) -> str:
  """Returns one line: the model, its training, and the data."""
  config = setting.config
  sizes = tree.sizes(jax.eval_shape(setting.net.init, jax.random.key(0)))
  return (
    f'{config.pairs} pairs of {config.model.module} with '
    f'{sum(sizes.values()):,} parameters; {len(setting.train[1])} training, '
    f'{len(setting.test[1])} test images; '
    f'{nets_training.describe(config.training)}'
  )


def keys(setting: Setting, stage: int) -> types.PRNGKey:
  """Returns a key for each pair, ``[S]``, different in every stage."""
  key = jax.random.fold_in(jax.random.key(setting.config.seed), stage)
  pairs = jnp.arange(setting.config.pairs, dtype=jnp.uint32)
  return jax.vmap(functools.partial(jax.random.fold_in, key))(pairs)


def statistics(setting: Setting) -> list[types.Array]:
  """Returns training images in batches, for statistics without labels."""
  config = setting.config.statistics
  x = setting.train[0][: config.examples]
  return [
    x[i : i + config.batch_size]
    for i in range(0, len(x) - config.batch_size + 1, config.batch_size)
  ]
