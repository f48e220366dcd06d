"""Networks from different seeds, on one task or on different ones."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._shared import nets, nets_training
from wsl import align, data, models, train, tree, types

HALVES = ('low', 'high')  # of the ten digits


class Task(NamedTuple):
  """Normalised images and their labels."""

  train: nets_training.Examples
  test: nets_training.Examples


class Setting(NamedTuple):
  """What every stage needs.

  Attributes:
    config: the run's.
    tasks: T tasks of one size, stacked, ``[T, N, ...]``, labels from 0.
    whole: the task that many networks share.
  """

  config: ml_collections.ConfigDict
  tasks: Task
  whole: Task


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data.

  Args:
    config: see ``configs/merge_seeds.py``.

  Returns:
    The setting.

  Raises:
    ValueError: naming what is wrong in the config.
    FileNotFoundError: if the data is missing.
  """
  if len(config.tasks) != 2:
    raise ValueError(f'tasks: expected two, got {len(config.tasks)}')
  if config.data == 'digits':
    whole = data.digits()
    found = [_half(whole, name) for name in config.tasks]
  else:
    try:
      named = data.folder(config.data, tasks=list(config.tasks))
    except FileNotFoundError as error:
      raise FileNotFoundError(f'{error}: --config.data=PATH') from None
    found = list(named.values())
    whole = found[0]
  x = np.concatenate([task.train.x for task in found])
  scale = float(x.mean(dtype=np.float64)), float(x.std(dtype=np.float64))
  tasks = [_normal(task, scale) for task in found]
  for split in ('train', 'test'):
    shapes = [getattr(task, split)[0].shape[1:] for task in tasks]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f"tasks: images of '{config.tasks[1]}' are {list(shapes[1])}, of "
        f"'{config.tasks[0]}' {list(shapes[0])}: merges need one shape"
      )
  count = [min(len(getattr(t, s)[1]) for t in tasks) for s in Task._fields]
  cut = [
    Task(*(jax.tree.map(lambda x, n=n: x[:n], s) for s, n in zip(task, count)))
    for task in tasks
  ]
  setting = Setting(config, tree.stack(cut), _normal(whole, scale))
  _check(config, count[0], len(setting.whole.train[1]))
  return setting


def _half(task: data.Task, name: str) -> data.Task:
  if name not in HALVES:
    raise ValueError(
      f"tasks: no '{name}' of the digits{tree.nearest(name, HALVES)}: there "
      f'are {", ".join(HALVES)}'
    )
  mine = lambda y: (y >= 5) == (name == 'high')
  return data.Task(
    *(data.Split(s.x[mine(s.y)], s.y[mine(s.y)] % 5) for s in task)
  )


def _normal(task: data.Task, scale: tuple[float, float]) -> Task:
  mean, std = scale
  return Task(
    *(
      (
        jnp.asarray((s.x.astype(np.float64) - mean) / std, jnp.float32),
        jnp.asarray(s.y, jnp.int32),
      )
      for s in task
    )
  )


def _check(config: ml_collections.ConfigDict, count: int, whole: int) -> None:
  many = config.many
  limits = {
    'seeds': (config.seeds, 1, None),
    'statistics.examples': (config.statistics.examples, 1, count),
    'statistics.batch_size': (
      config.statistics.batch_size,
      1,
      config.statistics.examples,
    ),
    'many.networks': (many.networks, 3, None),
    'many.points': (many.points, 3, None),
    'many.steps': (many.steps, 1, None),
    'many.held_out': (many.held_out, 1, whole - many.batch_size),
    'evaluation.batch_size': (config.evaluation.batch_size, 1, None),
  }
  for name, (value, least, most) in limits.items():
    if value < least or (most is not None and value > most):
      wanted = f'{least} or more' if most is None else f'{least} .. {most}'
      raise ValueError(f'{name}={value}: expected {wanted}')
  budgets = list(config.budgets)
  if budgets[:1] != [1] or budgets != sorted(budgets) or budgets[-1] > 2:
    raise ValueError(
      f'budgets={budgets}: expected growing numbers from 1, the cost of one '
      'network, to 2 at most, that of both'
    )
  nets_training.check(config.training, count)


def mlp(params: types.Params, x: types.Array) -> types.Array:
  """A multilayer perceptron as wide as its parameters are.

  Args:
    params: of ``models.MLP`` without normalisation.
    x: images, ``[B, ...]``.

  Returns:
    Logits, ``[B, C]``.
  """
  layers = params['params']
  h = x.reshape(x.shape[0], -1)
  for i in range(len(layers) - 1):
    dense = layers[f'block_{i}']['dense']
    h = jax.nn.relu(h @ dense['kernel'] + dense['bias'][None])
  return h @ layers['output']['kernel'] + layers['output']['bias'][None]


def networks(
  setting: Setting,
  task: Task,
  count: int,
  stage: int,
  pick: Callable[..., Any] = nets_training.everything,
) -> types.Params:
  """Trains some networks for each seed, ``[S, count, ...]``.

  Args:
    setting: what every stage needs.
    task: what they learn.
    count: how many for each seed.
    stage: makes their seeds differ from those of other stages.
    pick: which of the examples each learns from, as for ``nets_training``.

  Returns:
    Parameters.
  """
  config = setting.config
  outputs = int(task.train[1].max()) + 1
  model = models.MLP(widths=config.widths, outputs=outputs, norm=False)
  image = jnp.zeros((1, *setting.whole.train[0].shape[1:]), jnp.float32)
  net = nets.Net(lambda key: model.init(key, image), mlp, mlp, None)
  each = jax.vmap(lambda key: jax.random.split(key, count))
  found = nets_training.networks(
    net,
    config.training,
    each(keys(setting, stage)).reshape(-1),
    task.train,
    pick,
  )
  shape = (config.seeds, count)
  return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)


def keys(setting: Setting, stage: int) -> types.PRNGKey:
  """Returns a key for each seed, ``[S]``, different in every stage."""
  key = jax.random.fold_in(jax.random.key(setting.config.seed), stage)
  seeds = jnp.arange(setting.config.seeds, dtype=jnp.uint32)
  return jax.vmap(functools.partial(jax.random.fold_in, key))(seeds)


def symmetry(setting: Setting, params: types.Params) -> align.Symmetry:
  """Returns the symmetry of one network, from shapes alone."""
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), params
  )
  return align.find_symmetry(mlp, shapes, setting.whole.train[0][:1])


def evaluate(
  setting: Setting, params: types.Params, split: nets_training.Examples
) -> train.Metrics:
  """Returns loss and accuracy of a network."""
  size = setting.config.evaluation.batch_size
  return train.evaluate(mlp, params, split, batch_size=size)
