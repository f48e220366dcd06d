"""The trainings of a vision suite: base, experts, one model for all.

The base has initial encoders ``[S, ...]`` and frozen heads ``[S, T, ...]``.
"""

from collections.abc import Iterable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments._run import records
from experiments._shared import side_by_side, suites
from wsl import data, types


class Models(NamedTuple):
  """Base, task vectors and heads of all seeds.

  Attributes:
    base: encoders, ``[S, ...]``.
    stack: task vectors, ``[S, T, ...]``.
    heads: ``[S, T, ...]``, not merged.
  """

  base: types.Params
  stack: types.Deltas
  heads: types.Params


def models(out: records.Run, suite: suites.Suite) -> Models:
  """Trains a base, and an expert for each task; or reads them from the run."""
  start = out.arrays('base', lambda: base(suite))
  encoder, heads = start['encoder'], start['heads']
  trained = out.arrays('experts', lambda: experts(suite, encoder, heads))
  return Models(encoder, jax.jit(task_vectors)(encoder, trained), heads)


def base(suite: suites.Suite) -> types.Params:
  """Trains encoder and heads on a few images of every task.

  Returns:
    ``{'encoder': [S, ...], 'heads': [S, T, ...]}``.
  """
  config = suite.config.base
  few = jax.tree.map(lambda x: x[:, : config.examples], suite.tasks.train)

  def loss(
    bound: None, params: types.Params, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    del bound
    heads, encoder = params['heads'], params['encoder']
    return mixture_loss(suite, heads, encoder, batch, key)

  keys = suites.keys(suite, 0)
  start = jax.jit(functools.partial(jax.lax.map, suite.init))
  return side_by_side.advance_all(
    'base',
    loss,
    start(keys),
    keys,
    _mixture(few),
    lambda examples, run: (None, examples),
    steps=config.steps,
    batch_size=config.batch_size,
    rate=config.learning_rate,
    at_once=suite.config.at_once,
    mesh=suite.mesh,
  )


def experts(
  suite: suites.Suite, base: types.Params, heads: types.Params
) -> types.Params:
  """Trains the encoder on each task alone; returns encoders ``[S, T, ...]``."""
  config, count = suite.config, len(suite.tasks.names)

  def loss(
    head: types.Params, encoder: types.Params, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    del key
    logits = suite.classify({'encoder': encoder, 'head': head}, batch.x)
    return _cross_entropy(logits, batch.y)

  def own(shared: Any, run: types.Array) -> tuple[types.Params, data.Split]:
    heads, split = shared
    head = side_by_side.pick(heads, run)
    return head, side_by_side.pick(split, run % count)

  split = jax.vmap(functools.partial(jax.random.split, num=count))
  trained = side_by_side.advance_all(
    'experts',
    loss,
    jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), base),
    split(suites.keys(suite, 1)).reshape(-1),
    (side_by_side.flat(heads), suite.tasks.train),
    own,
    steps=_expert_steps(suite),
    **_expert_options(suite),
  )
  return side_by_side.fold(trained, config.seeds, count)


def task_vectors(base: types.Params, experts: types.Params) -> types.Deltas:
  """Returns ``[S, T, ...]``; ``deltas.stack`` for all seeds at once."""
  one = jax.vmap(jnp.subtract, in_axes=(0, None))
  return jax.tree.map(jax.vmap(one), experts, base)


def statistics(
  out: records.Run,
  suite: suites.Suite,
  names: Iterable[str],
  experts: types.Params,
  heads: types.Params,
) -> dict[str, types.Tree]:
  """Computes statistics of all experts, ``[S, T, ...]``, or loads them.

  Args:
    out: the run whose parts they are.
    suite: tasks and model.
    names: of the statistics, see ``suites.statistic``.
    experts: encoders, ``[S, T, ...]``.
    heads: ``[S, T, ...]``.

  Returns:
    The statistics by name.
  """
  lead = (suite.config.seeds, len(suite.tasks.names))
  return {
    name: out.arrays(
      name,
      functools.partial(suites.measure, suite, name, experts, heads),
      like=suites.abstract(suite, name, lead),
    )
    for name in names
  }


def joint(
  suite: suites.Suite, base: types.Params, heads: types.Params
) -> types.Params:
  """Trains the encoder on all tasks, for the steps of all experts together.

  Returns:
    Encoders, ``[S, ...]``.
  """

  def own(shared: Any, run: types.Array) -> tuple[types.Params, Any]:
    heads, examples = shared
    return side_by_side.pick(heads, run), examples

  return side_by_side.advance_all(
    'joint',
    functools.partial(mixture_loss, suite),
    base,
    suites.keys(suite, 2),
    (heads, _mixture(suite.tasks.train)),
    own,
    steps=_expert_steps(suite) * len(suite.tasks.names),
    **_expert_options(suite),
  )


def _mixture(
  split: data.Split,
) -> tuple[types.Array, types.Array, types.Array]:
  """Joins the tasks: (images, labels, index of the task), ``[T N, ...]``."""
  x, y = jnp.asarray(split.x), jnp.asarray(split.y)
  task = jnp.repeat(jnp.arange(y.shape[0], dtype=y.dtype), y.shape[1])
  return x.reshape(-1, *x.shape[2:]), y.reshape(-1), task


def mixture_loss(
  suite: suites.Suite,
  heads: types.Params,
  encoder: types.Params,
  batch: tuple[types.Array, types.Array, types.Array],
  key: types.PRNGKey,
) -> types.Array:
  """Returns the loss of a mixed batch, each example with its task's head.

  Args:
    suite: tasks and model.
    heads: ``[T, ...]``.
    encoder: of one model.
    batch: images ``[B, ...]``, labels ``[B]``, and tasks ``[B]``.
    key: not used.

  Returns:
    The mean cross-entropy.
  """
  del key
  x, y, task = batch
  # The logits of all heads [B, T, C], then those of each example's own task.
  features = suite.encode(encoder, x)
  logits = jnp.einsum('bw,twc->btc', features, heads['kernel'])
  logits = logits + heads['bias'][None]
  own = jnp.take_along_axis(logits, task[:, None, None], axis=1)[:, 0]
  return _cross_entropy(own, y)


def _cross_entropy(logits: types.Array, labels: types.Array) -> types.Array:
  """Returns the mean over a batch."""
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _expert_steps(suite: suites.Suite) -> int:
  """Returns the steps of the training of one expert."""
  config = suite.config.experts
  return config.epochs * (suite.tasks.train.y.shape[1] // config.batch_size)


def _expert_options(suite: suites.Suite) -> dict[str, Any]:
  """Returns batch size, rate and parallelism of experts and joint model."""
  config = suite.config
  return {
    'batch_size': config.experts.batch_size,
    'rate': config.models[config.model].expert_rate,
    'at_once': config.at_once,
    'mesh': suite.mesh,
  }
