"""Base, experts, their task vectors, and the heads of the tasks."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._run import records
from experiments._shared import (
  on_mesh,
  side_by_side,
  suite_accuracy,
  suite_training,
  suites,
)
from wsl import data, scale, types


class Models(NamedTuple):
  """S seeds of a base and T experts.

  Attributes:
    base: encoders, ``[S, ...]``.
    heads: ``[S, T, ...]``, frozen.
    stack: the experts' task vectors, ``[S, T, ...]``.
    tangent: task vectors of experts trained in the tangent space of the base.
  """

  base: types.Params
  heads: types.Params
  stack: types.Deltas
  tangent: types.Deltas | None


def load(
  suite: suites.Suite, out: records.Run, *, tangent: bool
) -> tuple[Models, dict[str, Any]]:
  """Trains base and experts, or loads them from the folder of the run.

  Args:
    suite: tasks and model.
    out: the run.
    tangent: whether to train experts in the tangent space too.

  Returns:
    The models; accuracies ``[S, T]`` of base and experts on both splits.
  """
  start = out.arrays('base', lambda: suite_training.base(suite))
  base, heads = start['encoder'], start['heads']
  experts = out.arrays(
    'experts', lambda: suite_training.experts(suite, base, heads)
  )
  vectors = jax.jit(_vectors)
  stack, linear = vectors(base, experts), None
  if tangent:
    linear = vectors(
      base,
      out.arrays('tangent', lambda: tangent_experts(suite, base, heads)),
    )
  # Vectors and bases are sharded over the axes of a mesh that map nothing.
  place = functools.partial(on_mesh.shard, mesh=suite.mesh)
  base, stack = place(base, lead=1), place(stack, lead=2)
  linear = None if linear is None else place(linear, lead=2)
  models = Models(base, heads, stack, linear)
  return models, out.values('bounds', lambda: _bounds(suite, models))


def tangent_experts(
  suite: suites.Suite, base: types.Params, heads: types.Params
) -> types.Params:
  """Trains an encoder that is linear in its weights on each task alone.

  Args:
    suite: tasks and model.
    base: point of linearisation, ``[S, ...]``.
    heads: ``[S, T, ...]``, frozen.

  Returns:
    Encoders, ``[S, T, ...]``, for ``scale.linear_model``.
  """
  config, count = suite.config, len(suite.tasks.names)

  def own(shared: Any, run: types.Array) -> tuple[types.Tree, data.Split]:
    base, heads, split = shared
    at_base = side_by_side.pick(base, run // count)
    head = side_by_side.pick(heads, run // count, run % count)
    return (at_base, head), side_by_side.pick(split, run % count)

  def loss(
    bound: Any, encoder: types.Params, batch: Any, key: types.PRNGKey
  ) -> types.Array:
    base, head = bound
    encode = scale.linear_model(suite.encode, base)
    apply_fn = jax.tree_util.Partial(logits, encode, head)
    return scale.supervised(apply_fn)(encoder, tuple(batch), key)

  keys = jax.vmap(functools.partial(jax.random.split, num=count))
  trained = side_by_side.advance_all(
    'tangent',
    loss,
    jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), base),
    keys(suites.keys(suite, 4)).reshape(-1),
    (base, heads, suite.tasks.train),
    own,
    steps=config.tangent.epochs
    * (suite.tasks.train.y.shape[1] // config.experts.batch_size),
    batch_size=config.experts.batch_size,
    rate=config.tangent.rate,
    at_once=config.at_once,
    mesh=suite.mesh,
  )
  return side_by_side.fold(trained, config.seeds, count)


def logits(
  encode: Callable[..., types.Array],
  head: types.Params,
  params: types.Params,
  x: types.Array,
) -> types.Array:
  """Returns ``[B, C]`` of images ``[B, ...]`` of one task."""
  return encode(params, x) @ head['kernel'] + head['bias'][None]


def all_logits(
  encode: Callable[..., types.Array],
  heads: types.Params,
  params: types.Params,
  x: types.Array,
) -> types.Array:
  """Returns ``[T, B, C]`` of images ``[T, B, ...]`` of all tasks."""
  features = encode(params, x.reshape(-1, *x.shape[2:]))
  features = features.reshape(*x.shape[:2], -1)
  found = jnp.einsum('tbw,twc->tbc', features, heads['kernel'])
  return found + heads['bias'][:, None]


def bank(
  suite: suites.Suite,
  base: types.Params,
  stack: types.Deltas,
  tasks: Any = None,
) -> scale.Bank:
  """Returns the bank of one seed.

  Args:
    suite: tasks and model.
    base: leaves ``[...]``.
    stack: leaves ``[T, ...]``.
    tasks: indices of the vectors; all by default. A selection has no names, so
      that banks of equal size share one compiled program.
  """
  if tasks is None:
    return scale.as_bank(base, stack, names=suite.tasks.names)
  return scale.as_bank(base, side_by_side.pick(stack, np.asarray(tasks)))


def _vectors(base: types.Params, experts: types.Params) -> types.Deltas:
  """Returns experts minus base, ``[S, T, ...]``."""
  return jax.tree.map(lambda x, y: y - x[:, None], base, experts)


def _bounds(suite: suites.Suite, models: Models) -> dict[str, Any]:
  """Returns the accuracies of base and experts on both splits."""
  found: dict[str, Any] = {'base': {}, 'experts': {}}
  experts = suite_accuracy.Experts(models.stack)
  for part in ('validation', 'test'):
    split = getattr(suite.tasks, part)
    for name, coef in (('base', 0.0), ('experts', 1.0)):
      accuracy = suite_accuracy.of_all(
        suite, models.base, experts, models.heads, split, (coef,)
      )
      found[name][part] = accuracy[0].tolist()
  return found
