"""What one pass over a leaf can find out about its magnitudes.

The bits of a non-negative float, read as an integer, keep its order,
so all of this is arithmetic on integers. A pass works on blocks of BLOCK
columns; XLA's CPU backend makes vector code of a loop over blocks, and scalar
code of a full reduction (see ``_sums``).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _sums

PROBES = 4


def integer(dtype: np.dtype) -> np.dtype:
  """Returns the integer of a float's width."""
  return np.dtype(f'int{8 * dtype.itemsize}')


def bits(x: types.Array, dtype: np.dtype) -> types.Array:
  """Reads magnitudes as integers of the same order."""
  floats = np.dtype(f'float{8 * dtype.itemsize}')
  wide = floats if dtype.itemsize > x.dtype.itemsize else x.dtype
  return jax.lax.bitcast_convert_type(jnp.abs(x.astype(wide)), dtype)


def sample(x: types.Array, *, stride: float) -> types.Array:
  """Takes about ``size / stride`` entries on a grid, ``[T, ...] -> [T, s]``."""
  step = max(stride, 1.0) ** (1 / max(x.ndim - 1, 1))
  for axis in range(1, x.ndim):
    rows = max(round(x.shape[axis] / step), 1)
    at = (np.arange(rows) + 0.5) * (x.shape[axis] / rows)
    x = jnp.take(x, at.astype(np.int32), axis=axis)
  return x.reshape(len(x), -1)


@jax.jit
def sorted_bits(samples: list[types.Array]) -> types.Array:
  """Joins and sorts samples, ``[T, s]``."""
  joined = jnp.concatenate(samples, axis=1)
  return jnp.sort(bits(joined, integer(joined.dtype)), axis=1)


def inside(x: types.Array, *, lo: types.Array, hi: types.Array) -> types.Array:
  """Finds the least and the greatest bits in ``[lo, hi)`` of each column.

  Args:
    x: one leaf, ``[T, ...]``.
    lo: ``[T]``.
    hi: ``[T]``.

  Returns:
    ``[2, T, BLOCK]``: ``hi - least`` and ``greatest - lo + 1``, so that both
    are 0 where a column holds none, and combine by the maximum. On the CPU an
    entry's column is its place in its block; elsewhere there is one.
  """
  return jax.lax.platform_dependent(
    x, lo, hi, cpu=_inside_by_blocks, default=_inside_plainly
  )


def _inside(
  x: types.Array, lo: types.Array, hi: types.Array
) -> tuple[types.Array, types.Array]:
  """Measures the entries inside from both ends; 0 outside."""
  lo, hi = (v.reshape(-1, *(1,) * (x.ndim - 1)) for v in (lo, hi))
  found = (bits(x, lo.dtype) >= lo) & (bits(x, lo.dtype) < hi)
  none = jnp.zeros((), lo.dtype)
  below = jnp.where(found, hi - bits(x, lo.dtype), none)
  return below, jnp.where(found, bits(x, lo.dtype) - lo + 1, none)


def _inside_plainly(
  x: types.Array, lo: types.Array, hi: types.Array
) -> types.Array:
  """Takes the whole leaf for one column, so that no axis is gathered."""
  ends = [v.max(tuple(range(1, x.ndim))) for v in _inside(x, lo, hi)]
  pad = [(0, 0), (0, 0), (0, _sums.BLOCK - 1)]
  return jnp.pad(jnp.stack(ends)[..., None], pad)


def _inside_by_blocks(
  x: types.Array, lo: types.Array, hi: types.Array
) -> types.Array:
  head, tail = _sums.split_blocks(x)
  widen = [(0, 0), (0, _sums.BLOCK - tail.shape[1])]
  state = [jnp.pad(v, widen) for v in _inside(tail, lo, hi)]

  def add(i: Any, state: list[types.Array]) -> list[types.Array]:
    block = jax.lax.dynamic_index_in_dim(head, i, 1, False)
    return list(map(jnp.maximum, state, _inside(block, lo, hi)))

  if head.size:
    state = jax.lax.fori_loop(0, head.shape[1], add, state)
  return jnp.stack(state)


def count(x: types.Array, *, probes: types.Array) -> types.Array:
  """Counts the entries that reach each probe: ``[T, m]``."""
  return jax.lax.platform_dependent(
    x, probes, cpu=_count_by_blocks, default=_count_plainly
  )


def _count_plainly(x: types.Array, probes: types.Array) -> types.Array:
  probes = probes.reshape(*probes.shape, *(1,) * (x.ndim - 1))
  reached = bits(x, probes.dtype)[:, None] >= probes
  return jnp.sum(reached, axis=tuple(range(2, reached.ndim)), dtype=np.int32)


def _count_by_blocks(x: types.Array, probes: types.Array) -> types.Array:
  """Counts with one word of four 8-bit counters for each column of a block."""
  head, tail = _sums.split_blocks(x)
  blocks, full = head.shape[1], 255
  counts = _count_plainly(tail, probes)
  if not blocks:
    return counts

  def add(i: Any, word: types.Array) -> types.Array:
    block = jax.lax.dynamic_index_in_dim(head, i, 1, False)
    block_bits = bits(block, probes.dtype)
    for j in range(PROBES):
      reached = (block_bits >= probes[:, j, None]).astype(np.uint32)
      word += reached << np.uint32(8 * j)
    return word

  def unpack(word: types.Array, j: int) -> types.Array:
    return ((word >> np.uint32(8 * j)) & np.uint32(255)).astype(np.int32)

  def group(g: Any, counts: types.Array) -> types.Array:
    empty = jnp.zeros((len(x), _sums.BLOCK), np.uint32)
    stop = jnp.minimum((g + 1) * full, blocks)
    word = jax.lax.fori_loop(g * full, stop, add, empty)
    parts = [unpack(word, j).sum(1, dtype=np.int32) for j in range(PROBES)]
    return counts + jnp.stack(parts, axis=1)

  return jax.lax.fori_loop(0, -(-blocks // full), group, counts)
