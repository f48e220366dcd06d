"""Sums of rows, each times its coefficients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.scale import _cells, _rows


def wide(dtype: np.dtype) -> np.dtype:
  """Returns the dtype that entries of ``dtype`` are computed in."""
  return dtype if dtype.itemsize >= 4 else np.dtype(np.float32)


def total_of(
  like: types.Array,
  coef: types.Array,
  *rows: Any,
  at: tuple[int, ...] | None,
  cells: _cells.Cells,
  seed: types.Array,
  shape: tuple[int, ...],
) -> types.Array:
  """Returns sum_i coef_i row_i in the dtype of ``like``."""
  coef = coef.astype(like.dtype)
  if at is not None:
    total = jnp.zeros(shape, like.dtype)
    for i, row in zip(at, rows):
      total = total + scaled(coef[i], row, cells, seed, shape)
    return total
  (stack,) = rows
  if isinstance(stack, _rows.LowRank) and cells is None:
    return _product(coef, stack)

  def term(c: types.Array, stack: Any, i: types.Array) -> types.Array:
    row = jax.tree.map(
      lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False), stack
    )
    return scaled(c, row, cells, seed, shape)

  return weighted_sum(stack, coef, term, shape)


def weighted_sum(
  stack: Any,
  coef: types.Array,
  term: Callable[[types.Array, Any, types.Array], types.Array],
  shape: tuple[int, ...],
) -> types.Array:
  """Adds up ``term(coef[i], stack, i)``, one i at a time.

  Args:
    stack: an array ``[T, ...]``, or a ``LowRank`` of them.
    coef: ``[T, cells...]``.
    term: one vector's coefficients times its row of the stack, ``[...]``.
    shape: of the result.
  """

  # A loop must not carry what can be computed before it: XLA would widen the
  # whole stack there, on a CPU even where nothing asks for it.
  def add(total: types.Array, step: Any) -> tuple[types.Array, None]:
    c, i = step
    rows, i = jax.lax.optimization_barrier((stack, i))
    return total + term(c, rows, i), None

  # Rows are read again in the backward pass, not kept.
  add = jax.checkpoint(add, prevent_cse=False)
  zeros = jnp.zeros(shape, coef.dtype)
  index = jnp.arange(len(coef), dtype=np.int32)
  return jax.lax.scan(add, zeros, (coef, index))[0]


def scaled(
  coef: types.Array,
  row: Any,
  cells: _cells.Cells,
  seed: types.Array,
  shape: tuple[int, ...],
) -> types.Array:
  """Returns one vector's leaf, dense, times its coefficients."""
  if isinstance(row, _rows.LowRank):
    row = jnp.tensordot(
      row.left.astype(coef.dtype),
      row.right.astype(coef.dtype),
      1,
      precision='highest',
    )
  return _cells.spread(coef, cells, seed, shape) * row.astype(coef.dtype)


def _product(coef: types.Array, stack: _rows.LowRank) -> types.Array:
  """Returns the sum of scaled products as one product of rank T r."""
  left = stack.left.astype(coef.dtype)
  left = left * coef.reshape(coef.shape + (1,) * (left.ndim - 1))
  left = jnp.moveaxis(left, 0, -2)
  left = left.reshape(*left.shape[:-2], -1)
  right = stack.right.astype(coef.dtype)
  right = right.reshape(-1, *right.shape[2:])
  return jnp.tensordot(left, right, 1, precision='highest')
