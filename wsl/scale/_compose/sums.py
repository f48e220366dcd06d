"""Weighted sums of rows, in constant memory.

A sum over T vectors is written as a loop that reads one row at a time, forward
and backward: a contraction over a bfloat16 stack would first widen it all.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.scale._bank import bank_rows
from wsl.scale._coefs import cell_maps


def total_of(
  like: types.Array,
  coef: types.Array,
  *rows: Any,
  at: tuple[int, ...] | None,
  cells: cell_maps.Cells,
  seed: types.Array,
  shape: tuple[int, ...],
) -> types.Array:
  """Returns sum_i coef_i row_i in the dtype of ``like``."""
  coef = coef.astype(like.dtype)
  if at is not None:
    members = cell_maps.draw(cells, seed, shape)
    total = jnp.zeros(shape, like.dtype)
    for i, row in zip(at, rows):
      total = total + scaled(coef[i], row, cells, members, shape)
    return total
  (stack,) = rows
  if isinstance(stack, bank_rows.LowRank) and cells is None:
    return _product(coef, stack)
  if isinstance(cells, cell_maps.Random):
    return _in_halves(coef, stack, cells, seed, shape)
  members = cell_maps.draw(cells, seed, shape)
  term = functools.partial(_row_of, cells=cells, members=members, shape=shape)
  return weighted_sum(stack, coef, term, shape)


def weighted_sum(
  stack: Any,
  coef: types.Array,
  term: Callable[[types.Array, Any, types.Array], types.Array],
  shape: tuple[int, ...],
  *,
  start: types.Scalar = 0,
) -> types.Array:
  """Sums ``term(coef[n], stack, start + n)`` over n in a loop.

  Args:
    stack: an array ``[T, ...]``, or a ``LowRank`` of them.
    coef: ``[N, cells...]``.
    term: one vector's coefficients times its row of the stack, ``[...]``.
    shape: of the result.
    start: the row of the first coefficient.
  """

  def add(total: types.Array, step: Any) -> tuple[types.Array, None]:
    c, i = step
    plus = lambda total, c, stack, i: total + term(c, stack, i)
    return _in_step(plus, total, c, i, stack), None

  index = np.arange(len(coef), dtype=np.int32) + jnp.asarray(start, np.int32)
  return _loop(add, (coef, index), jnp.zeros(shape, coef.dtype))


def _in_halves(
  coef: types.Array,
  stack: Any,
  cells: cell_maps.Cells,
  seed: types.Array,
  shape: tuple[int, ...],
) -> types.Array:
  """Sums two halves of the vectors, drawing the random cells in each."""
  # Cells drawn outside a loop would be residuals, kept for every leaf from the
  # forward to the backward pass. Drawn inside a checkpointed loop of two steps
  # they are freed after each step and recomputed. Two, as XLA inlines a loop of
  # one step.
  half = -(-len(coef) // 2)
  widths = [(0, 2 * half - len(coef))] + [(0, 0)] * (coef.ndim - 1)
  halves = jnp.pad(coef, widths).reshape(2, half, *coef.shape[1:])

  def add(total: types.Array, step: Any) -> tuple[types.Array, None]:
    c, start, shifted = step
    words = shifted + start.astype(np.uint32)
    members = cell_maps.draw(cells, words, shape)
    term = functools.partial(_row_of, cells=cells, members=members, shape=shape)
    return total + weighted_sum(stack, c, term, shape, start=start), None

  # The seed is the same in both steps. Each step adds its start to a different
  # number to obtain it, as XLA would otherwise draw once, before the loop.
  starts = np.asarray([0, half], np.int32)
  words = jnp.asarray(seed, np.uint32)[None]
  shifted = words - starts.astype(np.uint32)[:, None]
  return _loop(add, (halves, starts, shifted), jnp.zeros(shape, coef.dtype))


def _loop(add: Callable[..., Any], steps: Any, zeros: types.Array) -> Any:
  """Scans over steps; each step is recomputed in the backward pass.

  ``checkpoint`` keeps no row as a residual. A scan cannot be merged by common
  subexpression elimination, so its barriers are not needed.
  """
  return jax.lax.scan(jax.checkpoint(add, prevent_cse=False), zeros, steps)[0]


def _in_step(
  plus: Callable[..., types.Array],
  total: types.Array,
  coef: types.Array,
  i: types.Array,
  stack: Any,
) -> types.Array:
  """Returns ``plus(total, coef, stack, i)``; casts of the stack stay inside.

  XLA's CPU backend slices bfloat16 in float32: it casts the whole stack, and
  hoists the cast, which does not depend on the step, out of the loop, at T
  times the memory of a row. It hoists nothing out of a conditional. The
  predicate is always true, but depends on the step, so that it is not folded.
  Other backends slice bfloat16 as it is.
  """
  inside = lambda *args: jax.lax.cond(
    i >= 0, plus, lambda total, *_: total, *args
  )
  return jax.lax.platform_dependent(
    total, coef, stack, i, cpu=inside, default=plus
  )


def _row_of(
  coef: types.Array,
  stack: Any,
  i: types.Array,
  *,
  cells: cell_maps.Cells,
  members: types.Array | None,
  shape: tuple[int, ...],
) -> types.Array:
  """Returns row i of a stack (clamped to the last row), scaled."""
  row = jax.tree.map(
    lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False), stack
  )
  return scaled(coef, row, cells, members, shape)


def scaled(
  coef: types.Array,
  row: Any,
  cells: cell_maps.Cells,
  members: types.Array | None,
  shape: tuple[int, ...],
) -> types.Array:
  """Returns one vector's leaf, dense, times its coefficients."""
  if isinstance(row, bank_rows.LowRank):
    row = jnp.tensordot(
      row.left.astype(coef.dtype),
      row.right.astype(coef.dtype),
      1,
      precision='highest',
    )
  return cell_maps.spread(coef, cells, members, shape) * row.astype(coef.dtype)


def _product(coef: types.Array, stack: bank_rows.LowRank) -> types.Array:
  """Sums scaled low-rank products as one product of rank T r."""
  # sum_i c_i L_i R_i = [c_1 L_1 ... c_T L_T] [R_1; ...; R_T].
  left = stack.left.astype(coef.dtype)
  left = left * coef.reshape(coef.shape + (1,) * (left.ndim - 1))
  left = jnp.moveaxis(left, 0, -2)
  left = left.reshape(*left.shape[:-2], -1)
  right = stack.right.astype(coef.dtype)
  right = right.reshape(-1, *right.shape[2:])
  return jnp.tensordot(left, right, 1, precision='highest')
