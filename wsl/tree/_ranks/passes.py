"""One pass over a leaf: sample magnitudes, count them, or collect a few.

IEEE 754 orders sign, exponent and fraction from the most to the least
significant bit. With the sign bit cleared, the bits of a float read as an
integer are therefore monotone in its magnitude: |a| < |b| if and only if
bits(|a|) < bits(|b|), denormal numbers and infinity included. Comparisons and
thresholds are integer arithmetic here, exact and free of rounding.

Each pass is written twice. XLA's CPU backend emits scalar code for a reduction
of a comparison, but vectorises an elementwise loop: on a CPU a pass folds
blocks of ``_BLOCK`` entries into one. On accelerators one plain reduction is
best, and reduces shards without gathering them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types

PROBES = 4
_BLOCK = 8192


def integer(dtype: np.dtype) -> np.dtype:
  """Returns the integer dtype of a float's width."""
  return np.dtype(f'int{8 * dtype.itemsize}')


def bits(x: types.Array, dtype: np.dtype) -> types.Array:
  """Returns the bits of magnitudes as integers, which keep their order."""
  if jnp.iscomplexobj(x):
    x = jnp.abs(x)
  floats = np.dtype(f'float{8 * dtype.itemsize}')
  wide = floats if dtype.itemsize > x.dtype.itemsize else x.dtype
  return jax.lax.bitcast_convert_type(jnp.abs(x.astype(wide)), dtype)


def sample(x: types.Array, *, stride: float) -> types.Array:
  """Takes about ``size / stride`` entries on a grid, ``[T, ...] -> [T, s]``."""
  step = max(stride, 1.0) ** (1 / max(x.ndim - 1, 1))
  for axis in range(1, x.ndim):
    rows = max(round(x.shape[axis] / step), 1)
    index = (np.arange(rows) + 0.5) * (x.shape[axis] / rows)
    x = jnp.take(x, index.astype(np.int32), axis=axis)
  return x.reshape(len(x), -1)


@jax.jit
def sorted_bits(samples: list[types.Array]) -> types.Array:
  """Concatenates samples and sorts their bits, ``[T, s]``."""
  joined = jnp.concatenate(samples, axis=1)
  return jnp.sort(bits(joined, integer(joined.dtype)), axis=1)


def inside(x: types.Array, *, lo: types.Array, hi: types.Array) -> types.Array:
  """Finds the least and the greatest bits in ``[lo, hi)`` of each column.

  Args:
    x: one leaf, ``[T, ...]``.
    lo: ``[T]``.
    hi: ``[T]``.

  Returns:
    ``[2, T, _BLOCK]``: ``hi - least`` and ``greatest - lo + 1``, both 0 for a
    column without entries inside, so that the maximum combines blocks, leaves
    and shards. On a CPU an entry's column is its position in its block; on
    other devices the whole leaf is one column.
  """
  return jax.lax.platform_dependent(
    x, lo, hi, cpu=_inside_by_blocks, default=_inside_plainly
  )


def _inside(
  x: types.Array, lo: types.Array, hi: types.Array
) -> tuple[types.Array, types.Array]:
  """Returns each entry's distance to both ends of the bracket, 0 outside."""
  lo, hi = (v.reshape(-1, *(1,) * (x.ndim - 1)) for v in (lo, hi))
  found = (bits(x, lo.dtype) >= lo) & (bits(x, lo.dtype) < hi)
  none = jnp.zeros((), lo.dtype)
  below = jnp.where(found, hi - bits(x, lo.dtype), none)
  return below, jnp.where(found, bits(x, lo.dtype) - lo + 1, none)


def _inside_plainly(
  x: types.Array, lo: types.Array, hi: types.Array
) -> types.Array:
  """Treats the whole leaf as one column, so that no axis is gathered."""
  ends = [v.max(tuple(range(1, x.ndim))) for v in _inside(x, lo, hi)]
  pad = [(0, 0), (0, 0), (0, _BLOCK - 1)]
  return jnp.pad(jnp.stack(ends)[..., None], pad)


def _inside_by_blocks(
  x: types.Array, lo: types.Array, hi: types.Array
) -> types.Array:
  """Takes the maximum over blocks, entry by entry of a block."""
  head, tail = _split_blocks(x)
  widen = [(0, 0), (0, _BLOCK - tail.shape[1])]
  state = [jnp.pad(v, widen) for v in _inside(tail, lo, hi)]

  def add(i: Any, state: list[types.Array]) -> list[types.Array]:
    block = jax.lax.dynamic_index_in_dim(head, i, 1, False)
    return list(map(jnp.maximum, state, _inside(block, lo, hi)))

  if head.size:
    state = jax.lax.fori_loop(0, head.shape[1], add, state)
  return jnp.stack(state)


def count(x: types.Array, *, probes: types.Array) -> types.Array:
  """Counts the entries whose bits are at least each probe.

  Args:
    x: one leaf, ``[T, ...]``.
    probes: bits, ``[T, PROBES]``.

  Returns:
    Counts, ``[T, PROBES]``, int32.
  """
  return jax.lax.platform_dependent(
    x, probes, cpu=_count_by_blocks, default=_count_plainly
  )


def _count_plainly(x: types.Array, probes: types.Array) -> types.Array:
  """Counts by one reduction of a comparison for each probe."""
  probes = probes.reshape(*probes.shape, *(1,) * (x.ndim - 1))
  reached = bits(x, probes.dtype)[:, None] >= probes
  return jnp.sum(reached, axis=tuple(range(2, reached.ndim)), dtype=np.int32)


def _count_by_blocks(x: types.Array, probes: types.Array) -> types.Array:
  """Counts all probes in one 32-bit word for each column of a block."""
  head, tail = _split_blocks(x)
  blocks = head.shape[1]
  # A word packs PROBES = 4 counters of 8 bits. A block adds at most 1 to each,
  # so a counter holds 255 blocks; the words are then unpacked and summed.
  full = 255
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
    empty = jnp.zeros((len(x), _BLOCK), np.uint32)
    stop = jnp.minimum((g + 1) * full, blocks)
    word = jax.lax.fori_loop(g * full, stop, add, empty)
    parts = [unpack(word, j).sum(1, dtype=np.int32) for j in range(PROBES)]
    return counts + jnp.stack(parts, axis=1)

  return jax.lax.fori_loop(0, -(-blocks // full), group, counts)


def _split_blocks(x: types.Array) -> tuple[types.Array, types.Array]:
  """Splits ``[T, ...]`` into blocks ``[T, b, _BLOCK]`` and the rest."""
  x = x.reshape(len(x), -1)
  whole = x.shape[1] // _BLOCK * _BLOCK
  return x[:, :whole].reshape(len(x), -1, _BLOCK), x[:, whole:]
