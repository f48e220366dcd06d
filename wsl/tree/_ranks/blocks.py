"""Passes on a CPU: loops over blocks of columns, in one body for all leaves.

A block is copied from its leaf by a ``switch`` over leaves, which stays in the
cache, and everything else is compiled once for all leaves, whatever their
number, shapes and dtypes. Arithmetic is entry by entry of a block, which XLA
vectorises.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree._ranks import bits

COLUMNS = 8192
PROBES = 4
# A word packs 4 counters of 8 bits. A block adds at most 1 to each, so that a
# word holds 255 blocks.
_FULL = 255


class Piece(NamedTuple):
  """A part of a leaf: its entries from ``skip`` on belong to a group."""

  x: types.Array  # [T, n], floats, or bits where padded; n >= COLUMNS
  skip: int
  group: int


def count(pieces: Sequence[Piece], probes: types.Array) -> types.Array:
  """Counts the entries whose bits are at least each probe, see ``passes``."""
  rows = probes.shape[1]

  def add(block: types.Array, group: Any, word: types.Array) -> types.Array:
    limits = probes[group]
    for j in range(PROBES):
      reached = (block >= limits[:, j, None]).astype(np.uint32)
      word += reached << np.uint32(8 * j)
    return word

  def flush(word: types.Array, group: Any, counts: types.Array) -> types.Array:
    return _update(jnp.add, counts, group, _unpack(word).astype(counts.dtype))

  empty = jnp.zeros((rows, COLUMNS), np.uint32)
  counts = jnp.zeros(probes.shape, jax.dtypes.canonicalize_dtype(np.int64))
  return _fold(pieces, add, empty, flush, counts, probes.dtype)


def inside(
  pieces: Sequence[Piece], lo: types.Array, hi: types.Array
) -> types.Array:
  """Finds both ends of the bracket in each column, see ``passes``."""
  groups, rows = lo.shape

  def add(block: types.Array, group: Any, state: Any) -> Any:
    found = ends(block, lo[group][:, None], hi[group][:, None])
    return [jnp.maximum(x, y) for x, y in zip(state, found)]

  def flush(state: Any, group: Any, found: types.Array) -> types.Array:
    return _update(jnp.maximum, found, group, jnp.stack(state))

  empty = [jnp.zeros((rows, COLUMNS), lo.dtype)] * 2
  found = jnp.zeros((groups, 2, rows, COLUMNS), lo.dtype)
  return _fold(pieces, add, empty, flush, found, lo.dtype)


def ends(
  block: types.Array, lo: types.Array, hi: types.Array
) -> tuple[types.Array, types.Array]:
  """Returns each entry's distance to both ends of the bracket, 0 outside."""
  found = (block >= lo) & (block < hi)
  none = jnp.zeros((), lo.dtype)
  return jnp.where(found, hi - block, none), jnp.where(
    found, block - lo + 1, none
  )


def _fold(
  pieces: Sequence[Piece],
  add: Callable[..., Any],
  empty: Any,
  flush: Callable[..., Any],
  result: Any,
  dtype: np.dtype,
) -> Any:
  """Folds the blocks of each run into a state, and the states into a result.

  A run is at most ``_FULL`` consecutive blocks of one piece.
  """
  runs = []
  for p, piece in enumerate(pieces):
    last = -(-piece.x.shape[1] // COLUMNS)
    for first in range(0, last, _FULL):
      runs.append((p, piece.group, first, min(first + _FULL, last)))
  table = jnp.asarray(runs, np.int32)
  rows = jax.tree.leaves(empty)[0].shape[0]

  def run(r: Any, result: Any) -> Any:
    p, group, first, last = (table[r, i] for i in range(4))

    def step(i: Any, state: Any) -> Any:
      block = _read(pieces, p, i, dtype)
      return add(jnp.tile(block, (rows // len(block), 1)), group, state)

    return flush(jax.lax.fori_loop(first, last, step, empty), group, result)

  return jax.lax.fori_loop(0, len(runs), run, result)


def _read(
  pieces: Sequence[Piece], p: Any, i: Any, dtype: np.dtype
) -> types.Array:
  """Returns the bits of block i of piece p, ``[T, COLUMNS]``.

  The last block of a piece overlaps the one before it: entries that were read
  before are -1, below all magnitudes.
  """

  def reader(piece: Piece) -> Callable[[Any], types.Array]:
    def read(i: Any) -> types.Array:
      size = piece.x.shape[1]
      first = jnp.minimum(i * COLUMNS, size - COLUMNS)
      block = jax.lax.dynamic_slice_in_dim(piece.x, first, COLUMNS, 1)
      if piece.x.dtype != dtype:
        block = bits.of(block, dtype)
      if not piece.skip and not size % COLUMNS:
        return block
      position = first + jnp.arange(COLUMNS, dtype=np.int32)
      new = position >= jnp.maximum(i * COLUMNS, piece.skip)
      return jnp.where(new[None], block, jnp.asarray(-1, dtype))

    return read

  return jax.lax.switch(p, [reader(piece) for piece in pieces], i)


def _update(
  combine: Callable[..., types.Array], x: types.Array, i: Any, y: types.Array
) -> types.Array:
  """Combines the i-th element of x with y."""
  old = jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False)
  return jax.lax.dynamic_update_index_in_dim(x, combine(old, y), i, 0)


def _unpack(word: types.Array) -> types.Array:
  """Sums the columns of packed counters ``[R, COLUMNS]``, ``[R, PROBES]``.

  Counters of 8 bits are spread to two words of 16 bits, which hold the sum of
  256 columns; halves are added to each other, which XLA vectorises.
  """
  pairs = [
    word & np.uint32(0x00FF00FF),
    (word >> np.uint32(8)) & np.uint32(0x00FF00FF),
  ]
  while pairs[0].shape[1] > COLUMNS // 256:
    pairs = [x[:, : x.shape[1] // 2] + x[:, x.shape[1] // 2 :] for x in pairs]
  low, high = np.uint32(0xFFFF), np.uint32(16)
  parts = [pairs[0] & low, pairs[1] & low, pairs[0] >> high, pairs[1] >> high]
  return jnp.stack(
    [x.astype(np.int32).sum(1, dtype=np.int32) for x in parts], axis=1
  )
