r"""Linear merges of task vectors in factors: factors of a higher rank.

.. math:: \sum_t w_t s_t B_t A_t = B A, \qquad
  B = [w_1 s_1 B_1 \dots w_T s_T B_T], \quad A = [A_1^\top \dots A_T^\top]^\top
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _stack


def linear(
  deltas: types.Deltas,
  merge: Callable[[types.Deltas], types.Delta],
  weights: types.Array,
) -> types.Delta:
  """Merges arrays by a linear method, and factors by its weights.

  Args:
    deltas: a stack of task vectors.
    merge: of the tree of arrays, which has None in place of factors.
    weights: ``[T]``.
  """
  is_leaf = deltas_lib.is_factors
  arrays = jax.tree.map(
    lambda x: None if is_leaf(x) else x, deltas, is_leaf=is_leaf
  )
  merged = merge(arrays)
  leaf = lambda x, y: join(x, weights) if is_leaf(x) else y
  return jax.tree.map(leaf, deltas, merged, is_leaf=is_leaf)


def join(x: deltas_lib.Factors, weights: types.Array) -> deltas_lib.Factors:
  """Returns sum_t w_t s_t B_t A_t of a stack as factors of scale 1."""
  b = tree.apply_kernel(_joined_b, x.b, x.scale, weights=weights)
  a = tree.apply_kernel(_joined_a, x.a)
  return dataclasses.replace(x, a=a, b=b, scale=1.0)


def _joined_a(a: types.Array) -> types.Array:
  """Joins A ``[T, ..., r, in]`` along the rank."""
  a = jnp.moveaxis(a, 0, -3)
  return a.reshape(*a.shape[:-3], -1, a.shape[-1])


def _joined_b(
  b: types.Array, scale: types.Array, *, weights: types.Array
) -> types.Array:
  """Joins w s B of ``[T, ..., out, r]`` along the rank."""
  wide = _stack.weigh(b, weights)
  wide = wide * _stack.expand_rank(scale.astype(wide.dtype), wide)
  wide = jnp.moveaxis(wide, 0, -2)
  return wide.reshape(*wide.shape[:-2], -1).astype(b.dtype)
