"""One pass over leaves: sample magnitudes, count them, or collect a few.

A pass serves G searches of K ranks in each of T models at once. A leaf takes
part in one search, that of its group; all leaves are of one group in a search
over the whole model.

Each pass is written twice. XLA's CPU backend emits scalar code for a reduction
of a comparison, but vectorises an elementwise loop: on a CPU a pass runs over
blocks of the leaves, see ``blocks``. On accelerators plain reductions are best,
and reduce shards without gathering them.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree._ranks import bits, blocks, brackets

Groups: TypeAlias = tuple[int, ...]


def sample(x: types.Array, *, stride: float) -> types.Array:
  """Takes about ``size / stride`` entries on a grid, ``[T, ...] -> [T, s]``."""
  rest = max(stride, 1.0)
  grid = []
  for axis in range(1, x.ndim):
    # The stride that the other axes leave to this one, at most its length.
    step = round(rest ** (1 / (x.ndim - axis)))
    step = min(max(step, 1), x.shape[axis])
    rest = max(rest / step, 1.0)
    grid.append(slice(step // 2, None, step))
  return x[:, *grid].reshape(len(x), -1)


def count(
  *leaves: types.Array,
  probes: types.Array,
  groups: Groups,
  active: types.Array | None = None,
) -> types.Array:
  """Counts the entries whose bits are at least each probe.

  Args:
    *leaves: ``[T, ...]``.
    probes: bits, ``[G, K * T, PROBES]``.
    groups: the group of each leaf, 0 .. G - 1.
    active: which groups need their counts, ``[G]``; others may be left out.

  Returns:
    Counts, ``[G, K * T, PROBES]``, int32 (int64 under x64).
  """
  if active is None:
    active = jnp.ones(len(probes), bool)

  def plainly(leaves: Any, probes: types.Array, _: Any) -> Any:
    parts = [_count(x, probes[g]) for x, g in zip(leaves, groups)]
    wide = jax.dtypes.canonicalize_dtype(np.int64)
    parts = [x.astype(wide) for x in parts]
    return _by_group(jnp.add, parts, groups, len(probes))

  def by_blocks(leaves: Any, probes: types.Array, active: types.Array) -> Any:
    return blocks.count(_pieces(leaves, groups, probes.dtype), probes, active)

  return jax.lax.platform_dependent(
    leaves, probes, active, cpu=by_blocks, default=plainly
  )


def collect(
  *leaves: types.Array,
  bracket: brackets.Bracket,
  k: types.Array,
  groups: Groups,
  active: types.Array,
) -> brackets.Bracket:
  """Collects the entries inside the brackets, and settles these.

  Args:
    *leaves: ``[T, ...]``.
    bracket: brackets, every field ``[G, K * T]``.
    k: the ranks, ``[G, K * T]``.
    groups: the group of each leaf, 0 .. G - 1.
    active: which groups need it, ``[G]``; the others' result is arbitrary.

  Returns:
    The brackets, see ``brackets.settle``.
  """

  def plainly(leaves: Any, b: brackets.Bracket, k: Any, _: Any) -> Any:
    flat = lambda x: x.reshape(-1)
    found = _inside_plainly(leaves, b.lo, b.hi, groups)
    found = jnp.moveaxis(found, 1, 0).reshape(2, k.size, -1)
    settled = brackets.settle(jnp, jax.tree.map(flat, b), found, flat(k))
    return jax.tree.map(lambda x: x.reshape(k.shape), settled)

  def by_blocks(leaves: Any, b: brackets.Bracket, k: Any, active: Any) -> Any:
    pieces = _pieces(leaves, groups, b.lo.dtype)
    return blocks.collect(pieces, b, k, active)

  return jax.lax.platform_dependent(
    leaves, bracket, k, active, cpu=by_blocks, default=plainly
  )


def inside(
  *leaves: types.Array, lo: types.Array, hi: types.Array, groups: Groups
) -> types.Array:
  """Finds the least and the greatest bits in ``[lo, hi)`` of each column.

  Args:
    *leaves: ``[T, ...]``.
    lo: ``[G, K * T]``.
    hi: ``[G, K * T]``.
    groups: the group of each leaf.

  Returns:
    ``[G, 2, K * T, COLUMNS]``: ``hi - least`` and ``greatest - lo + 1``, both 0
    for a column without entries inside, so that the maximum combines blocks,
    leaves and shards. An entry's column is its position in its block, or on
    accelerators that along the last axis.
  """
  plainly = functools.partial(_inside_plainly, groups=groups)

  def by_blocks(leaves: Any, lo: types.Array, hi: types.Array) -> Any:
    return blocks.inside(_pieces(leaves, groups, lo.dtype), lo, hi)

  return jax.lax.platform_dependent(
    leaves, lo, hi, cpu=by_blocks, default=plainly
  )


def _inside_plainly(
  leaves: Sequence[types.Array],
  lo: types.Array,
  hi: types.Array,
  groups: Groups,
) -> types.Array:
  """Finds both ends in each column of each group, ``[G, 2, R, COLUMNS]``."""
  parts = [_inside(x, lo[g], hi[g]) for x, g in zip(leaves, groups)]
  return _by_group(jnp.maximum, parts, groups, len(lo))


def _count(x: types.Array, probes: types.Array) -> types.Array:
  """Counts one leaf by a reduction for each probe, ``[K * T, PROBES]``.

  Reductions of equal shape over one operand become one kernel on a GPU.
  """
  entries = _repeat(bits.of(x, probes.dtype), len(probes) // len(x))
  axes = tuple(range(1, entries.ndim))
  limits = [_expand(probes[:, j], entries) for j in range(blocks.PROBES)]
  counts = [jnp.sum(entries >= b, axis=axes, dtype=np.int32) for b in limits]
  return jnp.stack(counts, axis=1)


def _inside(x: types.Array, lo: types.Array, hi: types.Array) -> types.Array:
  """Finds both ends in each column of one leaf, ``[2, K * T, COLUMNS]``."""
  entries = _repeat(bits.of(x, lo.dtype), len(lo) // len(x))
  found = blocks.ends(entries, _expand(lo, entries), _expand(hi, entries))
  return jnp.stack([_fold(v) for v in found])


def _fold(x: types.Array) -> types.Array:
  """Takes the maximum over all axes but the first and columns of the last.

  An only axis is split in up to 128 rows, which may be shards.
  """
  if x.ndim == 2:
    x = x.reshape(len(x), math.gcd(x.shape[1], 128), -1)
  x = x.max(tuple(range(1, x.ndim - 1))).reshape(len(x), -1)
  rows = -(-x.shape[1] // blocks.COLUMNS)
  x = jnp.pad(x, [(0, 0), (0, rows * blocks.COLUMNS - x.shape[1])])
  return x.reshape(len(x), rows, blocks.COLUMNS).max(1)


def _expand(rows: types.Array, like: types.Array) -> types.Array:
  """Reshapes ``[R]`` to the rank of an array ``[R, ...]``."""
  return rows.reshape(-1, *(1,) * (like.ndim - 1))


def _repeat(x: types.Array, times: int) -> types.Array:
  """Repeats ``[T, ...]`` for K ranks, ``[K * T, ...]``."""
  if times == 1:
    return x
  rows = jnp.broadcast_to(x[None], (times, *x.shape))
  return rows.reshape(-1, *x.shape[1:])


def _by_group(
  combine: Any, parts: Sequence[types.Array], groups: Groups, number: int
) -> types.Array:
  """Combines the parts of each group, and stacks the groups."""
  found: list[Any] = [None] * number
  for part, g in zip(parts, groups):
    found[g] = part if found[g] is None else combine(found[g], part)
  return jnp.stack(found)


def _pieces(
  leaves: Sequence[types.Array], groups: Groups, dtype: np.dtype
) -> list[blocks.Piece]:
  """Views leaves as flat pieces of at least one block each.

  Small leaves of a group are joined, and padded by -1, below all magnitudes.
  """
  pieces = []
  small: dict[int, list[types.Array]] = {}
  for x, g in zip(leaves, groups):
    x = x.reshape(len(x), -1)
    if x.shape[1] < blocks.COLUMNS:
      small.setdefault(g, []).append(bits.of(x, dtype))
      continue
    for first in range(0, x.shape[1], 2**30):
      # Positions are int32. The last part may overlap the one before it.
      part = x[:, max(min(first, x.shape[1] - blocks.COLUMNS), 0) :][:, : 2**30]
      skip = max(first - (x.shape[1] - blocks.COLUMNS), 0)
      pieces.append(blocks.Piece(part, skip, g))
  for g, parts in small.items():
    x = jnp.concatenate(parts, axis=1)
    pad = [(0, 0), (0, max(blocks.COLUMNS - x.shape[1], 0))]
    pieces.append(blocks.Piece(jnp.pad(x, pad, constant_values=-1), 0, g))
  return pieces
