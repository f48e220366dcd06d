"""Norms, inner products and weighted sums of the leaves of several models."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.merge import _checks, _stack


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
