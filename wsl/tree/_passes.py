"""What one pass over a leaf can find out about its magnitudes.

The bits of a non-negative float, read as an unsigned integer, keep its order,
so all of this is arithmetic on integers. A pass works on blocks of BLOCK
columns; XLA's CPU backend makes vector code of a loop over blocks, and scalar
code of a full reduction (see ``_total``).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _total

PROBES = 4


def unsigned(dtype: np.dtype) -> np.dtype:
  """Returns the unsigned integer of a float's width."""
  return np.dtype(f'uint{8 * dtype.itemsize}')


def bits(x: types.Array, dtype: np.dtype) -> types.Array:
  """Reads magnitudes as unsigned integers of the same order."""
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
  return jnp.sort(bits(joined, unsigned(joined.dtype)), axis=1)


def inside(x: types.Array, *, lo: types.Array, hi: types.Array) -> types.Array:
  """Finds the least and the greatest bits in ``[lo, hi)`` of each column.

  Args:
    x: one leaf, ``[T, ...]``.
    lo: ``[T]``.
    hi: ``[T]``.

  Returns:
    ``[2, T, BLOCK]``: ``hi - least`` and ``greatest - lo + 1``, so that both
    are 0 where a column holds none, and combine by the maximum.
  """
  x = x.reshape(len(x), -1)
  head, tail = _total.split_blocks(x)
  pad = [(0, 0), (0, _total.BLOCK - tail.shape[1])]

  def look(block: types.Array, valid: Any = True) -> types.Array:
    low, high = (v.reshape(-1, *(1,) * (block.ndim - 1)) for v in (lo, hi))
    b = bits(block, lo.dtype)
    found = (b >= low) & (b < high) & valid
    one, none = jnp.ones_like(b), jnp.zeros_like(b)
    return jnp.stack(
      [jnp.where(found, high - b, none), jnp.where(found, b - low + one, none)]
    )

  def by_blocks(head: types.Array) -> types.Array:
    add = lambda i, state: jnp.maximum(
      state, look(jax.lax.dynamic_index_in_dim(head, i, 1, False))
    )
    return jax.lax.fori_loop(1, head.shape[1], add, look(head[:, 0]))

  rest = look(
    jnp.pad(tail, pad), jnp.arange(_total.BLOCK)[None] < tail.shape[1]
  )
  if not head.size:
    return rest
  plainly = lambda head: look(head).max(2)
  whole = jax.lax.platform_dependent(head, cpu=by_blocks, default=plainly)
  return jnp.maximum(whole, rest)


def count(x: types.Array, *, probes: types.Array) -> types.Array:
  """Counts the entries that reach each probe: ``[T, m]``."""
  x = x.reshape(len(x), -1)
  return jax.lax.platform_dependent(
    x, probes, cpu=_count_by_blocks, default=_count_plainly
  )


def _count_plainly(x: types.Array, probes: types.Array) -> types.Array:
  reached = bits(x, probes.dtype)[:, None, :] >= probes[:, :, None]
  return jnp.sum(reached, axis=2, dtype=np.int32)


def _count_by_blocks(x: types.Array, probes: types.Array) -> types.Array:
  """Counts with one word of four 8-bit counters for each column of a block."""
  head, tail = _total.split_blocks(x)
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
    empty = jnp.zeros((len(x), _total.BLOCK), np.uint32)
    stop = jnp.minimum((g + 1) * full, blocks)
    word = jax.lax.fori_loop(g * full, stop, add, empty)
    parts = [unpack(word, j).sum(1, dtype=np.int32) for j in range(PROBES)]
    return counts + jnp.stack(parts, axis=1)

  return jax.lax.fori_loop(0, -(-blocks // full), group, counts)
