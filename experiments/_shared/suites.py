"""A vision suite: tasks, a shared encoder, and a head for each task.

The first axes of a leaf are S seeds and T tasks: ``[S, ...]`` for a base,
``[S, T, ...]`` for experts and heads.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._run import checks, console, public_calls
from experiments._shared import side_by_side, suite_tasks
from wsl import models, stats, tree, types

_MEASURES: dict[str, Callable[..., types.Tree]] = {
  'fishers': stats.fisher,
  'grams': stats.gram,
}


class Suite(NamedTuple):
  """Tasks and model of a run.

  Attributes:
    config: the run's.
    tasks: images and labels.
    init: maps a key to ``{'encoder': ..., 'heads': [T, ...]}``.
    encode: maps (encoder, images) to features ``[B, W]``.
    classify: maps ({'encoder', 'head'}, images) to logits ``[B, C]``.
    loss: maps (encoder, ``Examples``) to the mean cross-entropy.
    outputs: maps (encoder, images) to the output of each module of the encoder,
      by name, in the order of application.
    mesh: of the run, or None.
  """

  config: ml_collections.ConfigDict
  tasks: suite_tasks.Tasks
  init: Callable[[types.PRNGKey], types.Params]
  encode: Callable[[types.Params, types.Array], types.Array]
  classify: Callable[[types.Params, types.Array], types.Array]
  loss: Callable[[types.Params, Any], types.Array]
  outputs: Callable[[types.Params, types.Array], dict[str, types.Array]]
  mesh: jax.sharding.Mesh | None = None


class Examples(NamedTuple):
  """Labelled images of each task, and its head.

  Attributes:
    x: images ``[T, N, ...]``.
    y: labels ``[T, N]``.
    head: ``[T, ...]``.
  """

  x: types.Array
  y: types.Array
  head: types.Params


def load(config: ml_collections.ConfigDict) -> Suite:
  """Reads the data and builds the model.

  Args:
    config: see ``configs/merge_vision.py``.

  Returns:
    The suite.

  Raises:
    ValueError: naming the wrong field.
    FileNotFoundError: if the data is missing.
  """
  model = _model(config)
  tasks = suite_tasks.load(
    config.data, config.tasks, validation=config.validation
  )
  _check_sizes(config, tasks)
  image = jnp.zeros((1, *tasks.train.x.shape[2:]), jnp.float32)

  def standard(x: types.Array) -> types.Array:
    return (jnp.asarray(x, jnp.float32) - tasks.mean) / tasks.std

  def encode(encoder: types.Params, x: types.Array) -> types.Array:
    return model.apply({'params': encoder}, standard(x))

  def outputs(encoder: types.Params, x: types.Array) -> dict[str, types.Array]:
    _, found = model.apply(
      {'params': encoder},
      standard(x),
      capture_intermediates=lambda module, _: len(module.path) == 1,
      mutable=['intermediates'],
    )
    calls = found['intermediates'].items()
    return {name: call['__call__'][0] for name, call in calls}

  def classify(params: types.Params, x: types.Array) -> types.Array:
    features = encode(params['encoder'], x)
    return features @ params['head']['kernel'] + params['head']['bias'][None]

  def loss(encoder: types.Params, batch: Examples) -> types.Array:
    logits = classify({'encoder': encoder, 'head': batch.head}, batch.x)
    labels = jax.nn.one_hot(batch.y, logits.shape[-1], dtype=logits.dtype)
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), -1))

  def init(key: types.PRNGKey) -> types.Params:
    keys = jax.random.split(key)
    encoder = model.init(keys[0], image)['params']
    width = jax.eval_shape(encode, encoder, image).shape[-1]
    shape = (len(tasks.names), width, tasks.classes)
    kernel = jax.random.normal(keys[1], shape, jnp.float32) / width**0.5
    heads = {'kernel': kernel, 'bias': jnp.zeros_like(kernel[:, 0])}
    return {'encoder': encoder, 'heads': heads}

  return Suite(config, tasks, init, encode, classify, loss, outputs)


def _model(config: ml_collections.ConfigDict) -> Any:
  """Returns the Flax module of the encoder."""
  checks.choice('model', config.model, config.models)
  chosen, where = config.models[config.model], f'models.{config.model}'
  module = public_calls.find(chosen.module, [models], where=where)
  public_calls.check(module, chosen.arguments, where=f'{where}.arguments')
  return module(**chosen.arguments)


def _check_sizes(
  config: ml_collections.ConfigDict, tasks: suite_tasks.Tasks
) -> None:
  """Checks the numbers of a config against the data."""
  count = tasks.train.y.shape[1]
  mixture = config.base.examples * len(tasks.names)
  limits = {
    'seeds': (config.seeds, 1, None),
    'at_once': (config.at_once, 1, None),
    'base.examples': (config.base.examples, 1, count),
    'base.batch_size': (config.base.batch_size, 1, mixture),
    'base.steps': (config.base.steps, 1, None),
    'experts.epochs': (config.experts.epochs, 1, None),
    'experts.batch_size': (config.experts.batch_size, 1, count),
    'evaluation.batch_size': (config.evaluation.batch_size, 1, None),
  }
  if 'statistics' in config:
    limits['statistics.examples'] = (config.statistics.examples, 1, count)
  checks.sizes(limits)


def describe(suite: Suite) -> str:
  """Returns the numbers of tasks, seeds, images and parameters in one line."""
  config, tasks = suite.config, suite.tasks
  size = sum(tree.sizes(shapes(suite)['encoder']).values())
  return (
    f'{len(tasks.names)} tasks x {config.seeds} seeds, '
    f'{tasks.train.y.shape[1]} training, {tasks.validation.y.shape[1]} '
    f'validation and {tasks.test.y.shape[1]} test images each; '
    f'{config.models[config.model].module} encoder of {size:,} parameters'
  )


def shapes(suite: Suite) -> types.Params:
  """Returns the shapes of the parameters that ``init`` draws."""
  return jax.eval_shape(suite.init, jax.random.key(0))


def keys(suite: Suite, stage: int) -> types.PRNGKey:
  """Returns a key for each seed, ``[S]``, different in every stage."""
  return side_by_side.keys(0, stage, suite.config.seeds)


def statistic(
  suite: Suite, name: str, params: types.Params, x: types.Array
) -> types.Tree:
  """Computes a statistic of one expert from images without labels.

  Args:
    suite: tasks and model.
    name: ``'fishers'`` or ``'grams'``.
    params: ``{'encoder', 'head'}``.
    x: images ``[N, ...]``.

  Returns:
    The statistic of the encoder, a tree like it.
  """
  return _MEASURES[name](suite.classify, params, [x])['encoder']


def abstract(suite: Suite, name: str, lead: tuple[int, ...]) -> types.Tree:
  """Returns a statistic's shapes, stacked along the axes ``lead``."""

  def one(params: types.Params) -> types.Tree:
    head = jax.tree.map(lambda x: x[0], params['heads'])
    x = jnp.asarray(suite.tasks.train.x[0, :1])
    own = {'encoder': params['encoder'], 'head': head}
    return statistic(suite, name, own, x)

  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype),
    jax.eval_shape(one, shapes(suite)),
  )


def examples(suite: Suite, heads: types.Params) -> Examples:
  """Returns the training images that merges may read, and the heads."""
  number = suite.config.statistics.examples
  train = suite.tasks.train
  x, y = (jnp.asarray(part[:, :number]) for part in (train.x, train.y))
  return Examples(x.astype(jnp.float32), y, heads)


def measure(
  suite: Suite, name: str, experts: types.Params, heads: types.Params
) -> types.Tree:
  """Computes a statistic of every expert on its task, ``[S, T, ...]``."""
  seeds, count = suite.config.seeds, len(suite.tasks.names)
  compute = jax.jit(functools.partial(statistic, suite, name))
  found = []
  with console.progress(name, seeds * count) as tick:
    for s, t in np.ndindex(seeds, count):
      params = side_by_side.pick({'encoder': experts, 'head': heads}, s, t)
      x = suite.tasks.train.x[t, : suite.config.statistics.examples]
      found.append(jax.block_until_ready(compute(params, jnp.asarray(x))))
      tick('')
  return side_by_side.fold(tree.stack(found), seeds, count)
