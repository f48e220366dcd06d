"""Networks from different seeds, on one task or on several: data, training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from experiments._run import checks
from experiments._shared import (
  nets,
  nets_training,
  one_task,
  side_by_side,
  suite_tasks,
)
from wsl import align, data, models, train, tree, types

HALVES = ('low', 'high')  # of the ten digits


class Task(NamedTuple):
  """Normalised images and their labels."""

  train: nets_training.Examples
  test: nets_training.Examples


class Setting(NamedTuple):
  """Config and data of a run.

  Attributes:
    config: of the run.
    tasks: T tasks of one size, stacked, ``[T, N, ...]``, labels from 0.
    whole: the task of all networks of the second question.
  """

  config: ml_collections.ConfigDict
  tasks: Task
  whole: Task


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  if len(config.tasks) != 2:
    raise ValueError(f'tasks: expected two, got {len(config.tasks)}')
  if config.data == 'digits':
    whole = data.digits()
    found = [_half(whole, name) for name in config.tasks]
  else:
    found = list(suite_tasks.folder(config.data, config.tasks).values())
    whole = found[0]
  scale = one_task.statistics(*(task.train for task in found))
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
  """Returns the digits 0 .. 4 or 5 .. 9, labelled from 0."""
  checks.choice('tasks', name, HALVES, of=' of the digits')
  mine = lambda y: (y >= 5) == (name == 'high')
  return data.Task(
    *(data.Split(s.x[mine(s.y)], s.y[mine(s.y)] % 5) for s in task)
  )


def _normal(task: data.Task, scale: tuple[float, float]) -> Task:
  """Normalises both splits by (mean, standard deviation)."""
  return Task(*(one_task.normal(split, *scale) for split in task))


def _check(config: ml_collections.ConfigDict, count: int, whole: int) -> None:
  """Checks a config against the numbers of images of a task and the whole."""
  many, few = config.many, config.statistics
  checks.sizes(
    {
      'seeds': (config.seeds, 1, None),
      'statistics.examples': (few.examples, 1, count),
      'statistics.batch_size': (few.batch_size, 1, few.examples),
      'many.networks': (many.networks, 3, None),
      'many.points': (many.points, 3, None),
      'many.steps': (many.steps, 1, None),
      'many.held_out': (many.held_out, 1, whole - many.batch_size),
      'evaluation.batch_size': (config.evaluation.batch_size, 1, None),
    }
  )
  budgets = list(config.budgets)
  if budgets[:1] != [1] or budgets != sorted(budgets) or budgets[-1] > 2:
    raise ValueError(
      f'budgets={budgets}: expected growing numbers from 1, the cost of one '
      'network, to 2 at most, that of both'
    )
  nets_training.check(config.training, count)


def describe(setting: Setting) -> str:
  """Returns seeds, widths and training in one line."""
  config = setting.config
  return (
    f'{config.seeds} seeds; MLPs of widths {list(config.widths)}; '
    f'{nets_training.describe(config.training)}'
  )


def mlp(params: types.Params, x: types.Array) -> types.Array:
  """Applies a multilayer perceptron of any widths.

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
    setting: config, data and model.
    task: its training images.
    count: networks for each seed.
    stage: of the keys.
    pick: selects the examples of each network, see ``nets_training``.

  Returns:
    Parameters.
  """
  config = setting.config
  outputs = int(task.train[1].max()) + 1
  model = models.MLP(widths=config.widths, outputs=outputs, norm=False)
  image = jnp.zeros((1, *setting.whole.train[0].shape[1:]), jnp.float32)
  # ``mlp`` in place of the module: merges have other widths than the config.
  net = nets.Net(lambda key: model.init(key, image), mlp, mlp, None)
  each = jax.vmap(lambda key: jax.random.split(key, count))
  found = nets_training.networks(
    net,
    config.training,
    each(keys(setting, stage)).reshape(-1),
    task.train,
    pick,
  )
  return side_by_side.fold(found, config.seeds, count)


def keys(setting: Setting, stage: int) -> types.PRNGKey:
  """Returns a key for each seed, ``[S]``, different in every stage."""
  return side_by_side.keys(setting.config.seed, stage, setting.config.seeds)


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
