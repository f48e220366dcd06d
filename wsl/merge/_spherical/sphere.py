"""Norms, inner products and weighted sums of the leaves of several models."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas, tree, types
from wsl.merge import _checks, _stack

# Equal leaves of one kernel on an accelerator, and the bytes of their models.
_AT_ONCE, _BYTES = 4, 2**31


def checked(
  function: str, models: Sequence[types.Params], weights: Any
) -> tuple[list[types.Params], types.Array]:
  """Checks models and weights; the models come in the first's containers."""
  if not models:
    raise ValueError(f'{function}: no models given, at least one is needed')
  weights = _checks.weights(function, weights, len(models))
  named = {f'model {t}': model for t, model in enumerate(models)}
  return deltas.check(function, named), weights


def map_floats(
  kernel: Any, models: Sequence[types.Params], weights: Any, hyper: Any
) -> types.Params:
  """Applies a kernel to float leaves; integers are those of the first model."""

  def merge(weights: Any, *leaves: Any) -> Any:
    if not tree.is_float(leaves[0]):
      return leaves[0]
    return tree.apply_kernel(kernel, *leaves, weights=weights, **hyper)

  each = tree.at_leaves(weights, models[0])
  return _stack.fuse(models, lambda given: jax.tree.map(merge, each, *given))


def map_alike(
  kernel: Callable[..., types.Array],
  models: Sequence[types.Params],
  weights: Any,
  hyper: dict[str, Any],
) -> types.Params:
  """Applies a kernel with a loop to float leaves, as ``map_floats``.

  In a trace a few equal leaves are merged together: on an accelerator by one
  loop, which is compiled in the time of a loop for one leaf.
  """
  if tree.on_demand(models) or not tree.is_traced(models):
    return map_floats(kernel, models, weights, hyper)
  pairs = list(zip(*map(jax.tree.leaves, models)))
  merged = [leaf for leaf, *_ in pairs]
  each = tree.at_leaves(weights, merged)
  for batch in _alike(pairs, list(tree.named(models[0]))):
    found = tree.apply_kernel(
      _together,
      *[x for i in batch for x in pairs[i]],
      weights=each[batch[0]],
      merge=tree.Static(kernel),
      number=tree.Static(len(batch)),
      **hyper,
    )
    for i, x in zip(batch, found):
      merged[i] = x
  return jax.tree.unflatten(jax.tree.structure(models[0]), merged)


def _alike(
  pairs: Sequence[Sequence[types.Array]], names: Sequence[str]
) -> list[Sequence[int]]:
  """Returns the indices of float leaves, a few of one role and shape at once.

  Leaves of one role are sharded alike, so that their stack is sharded as well.
  """
  alike: dict[Any, list[int]] = {}
  for i, (xs, name) in enumerate(zip(pairs, names, strict=True)):
    if tree.is_float(xs[0]):
      kind = [(x.shape, str(x.dtype)) for x in xs]
      alike.setdefault((tree.role(name), *kind), []).append(i)
  batches: list[Any] = []
  for members in alike.values():
    size = sum(x.size * x.dtype.itemsize for x in pairs[members[0]])
    most = min(max(_BYTES // max(size, 1), 1), _AT_ONCE)
    batches += np.array_split(members, -(-len(members) // most))
  return batches


def _together(
  *leaves: types.Array,
  weights: types.Array,
  merge: Callable[..., types.Array],
  number: int,
  **hyper: Any,
) -> list[types.Array]:
  """Applies a kernel to several equal leaves: one by one on a CPU."""
  kernel = functools.partial(merge, weights=weights, **hyper)

  def one_by_one(*leaves: types.Array) -> list[types.Array]:
    each = len(leaves) // number
    return [kernel(*leaves[i * each : (i + 1) * each]) for i in range(number)]

  def at_once(*leaves: types.Array) -> list[types.Array]:
    each = len(leaves) // number
    stacks = [jnp.stack(leaves[t::each]) for t in range(each)]
    return list(jnp.unstack(jax.vmap(kernel)(*stacks)))

  if number == 1:
    return one_by_one(*leaves)
  return jax.lax.platform_dependent(*leaves, cpu=one_by_one, default=at_once)


def dots(x: types.Array, y: types.Array) -> types.Array:
  """Returns the inner products of pairs of rows of ``[T, ...]``, ``[T]``."""
  return tree.sum_entries(tree.inner(x, y))


def norms(x: types.Array) -> types.Array:
  """Returns the Euclidean norms ``[T]``; their gradients at zero are zero."""
  square = dots(x, x)
  root = jnp.sqrt(jnp.where(square == 0, 1, square))
  return jnp.where(square == 0, 0, root)


def norm(x: types.Array) -> types.Array:
  """Returns the Euclidean norm of one array."""
  return norms(x[None])[0]


def combine(w: types.Array, x: types.Array) -> types.Array:
  """Returns the sum of ``[T, ...]`` by weights ``[T]``."""
  return _stack.sum_models(_stack.weigh(x, w))
