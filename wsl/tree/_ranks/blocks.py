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
from wsl.tree._ranks import bits, brackets

COLUMNS = 16384
PROBES = 4
# A word packs 4 counters of 8 bits. A block adds at most 1 to each, so that a
# word holds 255 blocks.
_FULL = 255


class Piece(NamedTuple):
  """A part of a leaf: its entries from ``skip`` on belong to a group."""

  x: types.Array  # [T, n], floats, or bits where padded; n >= COLUMNS
  skip: int
  group: int


def count(
  pieces: Sequence[Piece], probes: types.Array, active: types.Array
) -> types.Array:
  """Counts the entries whose bits are at least each probe, see ``passes``."""
  rows = probes.shape[1]
  table, _ = _runs(pieces)

  def run(r: Any, counts: types.Array) -> types.Array:
    group = table[r, 1]
    limits = probes[group]

    def add(block: types.Array, word: types.Array) -> types.Array:
      for j in range(PROBES):
        reached = (block >= limits[:, j, None]).astype(np.uint32)
        word += reached << np.uint32(8 * j)
      return word

    empty = jnp.zeros((rows, COLUMNS), np.uint32)
    word = _fold(
      pieces, table[r], add, empty, rows, probes.dtype, active[group]
    )
    counted = counts[group] + _unpack(word).astype(counts.dtype)
    return jax.lax.dynamic_update_index_in_dim(counts, counted, group, 0)

  counts = jnp.zeros(probes.shape, jax.dtypes.canonicalize_dtype(np.int64))
  return jax.lax.fori_loop(0, len(table), run, counts)


def inside(
  pieces: Sequence[Piece], lo: types.Array, hi: types.Array
) -> types.Array:
  """Finds both ends of the bracket in each column, ``[G, 2, R, COLUMNS]``."""
  return jnp.stack([_ends(pieces, g, lo[g], hi[g]) for g in range(len(lo))])


def collect(
  pieces: Sequence[Piece],
  bracket: brackets.Bracket,
  k: types.Array,
  active: types.Array,
) -> brackets.Bracket:
  """Settles the brackets ``[G, R]``, group by group to bound the memory."""

  def settle(b: Any) -> brackets.Bracket:
    g, bracket, k, reads = b
    found = _ends(pieces, g, bracket.lo, bracket.hi, reads)
    return brackets.settle(jnp, bracket, found, k)

  groups = jnp.arange(len(k), dtype=np.int32)
  return jax.lax.map(settle, (groups, bracket, k, active))


def _ends(
  pieces: Sequence[Piece],
  group: Any,
  lo: types.Array,
  hi: types.Array,
  reads: Any = True,
) -> types.Array:
  """Finds both ends in each column of one group, ``[2, R, COLUMNS]``."""
  table, bounds = _runs(pieces)

  def add(block: types.Array, state: Any) -> Any:
    found = ends(block, lo[:, None], hi[:, None])
    return [jnp.maximum(x, y) for x, y in zip(state, found)]

  def run(r: Any, state: Any) -> Any:
    return _fold(pieces, table[r], add, state, len(lo), lo.dtype)

  empty = [jnp.zeros((len(lo), COLUMNS), lo.dtype)] * 2
  first, last = bounds[group], bounds[group + 1]
  last = jnp.where(reads, last, first)
  return jnp.stack(jax.lax.fori_loop(first, last, run, empty))


def ends(
  block: types.Array, lo: types.Array, hi: types.Array
) -> tuple[types.Array, types.Array]:
  """Returns each entry's distance to both ends of the bracket, 0 outside."""
  found = (block >= lo) & (block < hi)
  none = jnp.zeros((), lo.dtype)
  return jnp.where(found, hi - block, none), jnp.where(
    found, block - lo + 1, none
  )


def _runs(pieces: Sequence[Piece]) -> tuple[types.Array, types.Array]:
  """Lists runs of at most ``_FULL`` consecutive blocks of one piece.

  Returns:
    For each run the piece, its group, the first block, and the one after the
    last; sorted by group. Where the runs of each group begin, ``[G + 1]``.
  """
  runs = []
  for p, piece in enumerate(pieces):
    last = -(-piece.x.shape[1] // COLUMNS)
    for first in range(0, last, _FULL):
      runs.append((p, piece.group, first, min(first + _FULL, last)))
  table = np.asarray(sorted(runs, key=lambda run: run[1]), np.int32)
  groups = np.arange(table[-1, 1] + 2)
  bounds = np.searchsorted(table[:, 1], groups).astype(np.int32)
  return jnp.asarray(table), jnp.asarray(bounds)


def _fold(
  pieces: Sequence[Piece],
  run: types.Array,
  add: Callable[..., Any],
  state: Any,
  rows: int,
  dtype: np.dtype,
  reads: Any = True,
) -> Any:
  """Folds the blocks of a run, repeated to so many rows, into a state."""

  def step(i: Any, state: Any) -> Any:
    block = _read(pieces, run[0], i, dtype)
    return add(jnp.tile(block, (rows // len(block), 1)), state)

  last = jnp.where(reads, run[3], run[2])
  return jax.lax.fori_loop(run[2], last, step, state)


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
