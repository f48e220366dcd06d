"""Rows of an array in buffers of their own, so that equal kernels stay equal.

A compiler compiles a kernel once that a program contains several times. XLA,
however, fuses the slice ``x[i]`` into the kernel that uses it, which then
differs for each i, and on a GPU it merges kernels that share an operand into
one, whose code grows with their number. Both are prevented here, at the price
of a copy of each row.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types


def separate(rows: types.Array, places: Sequence[int]) -> list[types.Array]:
  """Returns ``rows[i]`` for some i; in a trace, each in a buffer of its own.

  Args:
    rows: a small array of integers or floats, ``[n, ...]``.
    places: the indices of the rows; one may occur several times.

  Returns:
    A row for each place.

  Example:
    >>> rows = jnp.asarray([[1, 2], [3, 4]])
    >>> [x.tolist() for x in jax.jit(lambda x: separate(x, (1, 0, 1)))(rows)]
    [[3, 4], [1, 2], [3, 4]]
  """
  plainly = lambda rows: [rows[i] for i in places]
  if not isinstance(rows, jax.core.Tracer) or len(places) == 1:
    return plainly(rows)
  if jnp.issubdtype(rows.dtype, np.floating):
    integers = rows.view(f'int{8 * rows.dtype.itemsize}')
    return [x.view(rows.dtype) for x in separate(integers, places)]
  same = len(set(places)) == 1  # no slices that differ
  return jax.lax.platform_dependent(
    rows,
    cpu=plainly if same else lambda rows: _in_branch(rows, places),
    default=lambda rows: _in_loop(rows, places),
  )


def _in_branch(rows: types.Array, places: Sequence[int]) -> list[types.Array]:
  """Copies rows in the branch of a conditional, across which XLA fuses nothing.

  On a GPU the branch would become a select, and be fused.
  """
  taken = lambda rows: [rows[i] for i in places]
  zeros = lambda rows: [jnp.zeros_like(rows[0]) for _ in places]
  return jax.lax.cond(_one(rows) > 0, taken, zeros, rows)


def _in_loop(rows: types.Array, places: Sequence[int]) -> list[types.Array]:
  """Copies rows in the only step of a loop, by kernels that are all equal."""
  shape, dtype = rows.shape[1:], rows.dtype
  rows = rows.reshape(len(rows), -1)
  # The place stands behind the entries of each copy, and the number of steps
  # is computed: XLA does not know them, so that it neither builds them into the
  # kernels, nor unrolls the loop. A place counts from 1, for XLA would take a
  # copy of equal entries, such as zeros, as one number.
  copies: Any = [np.zeros(rows.shape[1] + 1, dtype) for _ in places]
  for copy, place in zip(copies, places):
    copy[-1] = place + 1
  table, steps = jnp.pad(rows, [(1, 0), (0, 0)]), _one(rows)

  def copy_all(state: Any) -> Any:
    i, copies = state
    found = []
    for copy in copies:
      place = copy[-1:]
      row = jax.lax.dynamic_index_in_dim(
        table, place[0], keepdims=False, allow_negative_indices=False
      )
      found.append(jnp.concatenate([row, place]))
    return i + jnp.ones((), dtype), found

  _, copies = jax.lax.while_loop(
    lambda state: state[0] < steps, copy_all, (jnp.zeros((), dtype), copies)
  )
  return [copy[:-1].reshape(shape) for copy in copies]


def _one(rows: types.Array) -> types.Array:
  """Returns 1, of the dtype of some integers, as a function of them."""
  one = jnp.ones((), rows.dtype)
  return (rows[(0,) * rows.ndim] | one) & one
