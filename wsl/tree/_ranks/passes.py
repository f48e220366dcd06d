"""One pass over leaves: sample magnitudes, count them, or collect a few.

A pass serves G searches of K ranks in each of T models at once. A leaf takes
part in one search, that of its group; all leaves are of one group in a search
over the whole model.

Each pass is written twice. XLA's CPU backend emits scalar code for a reduction
of a comparison, but vectorises an elementwise loop: on a CPU a pass runs over
blocks of the leaves, see ``blocks``. On accelerators plain reductions are best,
see ``reductions``.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree._ranks import bits, blocks, brackets, reductions

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
  own: Sequence[types.Array] | None = None,
  active: types.Array | None = None,
) -> types.Array:
  """Counts the entries whose bits are at least each probe.

  Args:
    *leaves: ``[T, ...]``.
    probes: bits, ``[G, K * T, PROBES]``.
    groups: the group of each leaf, 0 .. G - 1.
    own: for accelerators the limits of each leaf's group in an array of its
      own: ``[K * T, PROBES]``, or more columns.
    active: which groups need their counts, ``[G]``; others may be left out.

  Returns:
    Counts, ``[G, K * T, PROBES]``, int32 (int64 under x64).
  """
  if active is None:
    active = jnp.ones(len(probes), bool)
  if own is None:
    own = [probes[g] for g in groups]

  def plainly(leaves: Any, _: Any, own: Any, __: Any) -> Any:
    limits = [y[:, : blocks.PROBES] for y in own]
    return reductions.count(leaves, limits, groups)

  def by_blocks(leaves: Any, probes: types.Array, _: Any, active: Any) -> Any:
    return blocks.count(_pieces(leaves, groups, probes.dtype), probes, active)

  return jax.lax.platform_dependent(
    leaves, probes, own, active, cpu=by_blocks, default=plainly
  )


def collect(
  *leaves: types.Array,
  bracket: brackets.Bracket,
  k: types.Array,
  groups: Groups,
  own: Sequence[types.Array],
  active: types.Array,
) -> brackets.Bracket:
  """Collects the entries inside the brackets, and settles these.

  Args:
    *leaves: ``[T, ...]``.
    bracket: brackets, every field ``[G, K * T]``.
    k: the ranks, ``[G, K * T]``.
    groups: the group of each leaf, 0 .. G - 1.
    own: for accelerators the probes, lo and hi of each leaf's group in an array
      of its own, ``[K * T, PROBES + 2]``.
    active: which groups need it, ``[G]``; the others' result is arbitrary.

  Returns:
    The brackets, see ``brackets.settle``.
  """

  def plainly(leaves: Any, b: Any, k: Any, own: Any, _: Any) -> Any:
    flat = lambda x: x.reshape(-1)
    limits = [y[:, blocks.PROBES :] for y in own]
    found = reductions.inside(leaves, limits, groups)
    found = jnp.moveaxis(found, 1, 0).reshape(2, k.size, -1)
    settled = brackets.settle(jnp, jax.tree.map(flat, b), found, flat(k))
    return jax.tree.map(lambda x: x.reshape(k.shape), settled)

  def by_blocks(leaves: Any, b: Any, k: Any, _: Any, active: Any) -> Any:
    pieces = _pieces(leaves, groups, b.lo.dtype)
    return blocks.collect(pieces, b, k, active)

  return jax.lax.platform_dependent(
    leaves, bracket, k, own, active, cpu=by_blocks, default=plainly
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
    accelerators the run of entries that it belongs to.
  """

  def plainly(leaves: Any, lo: types.Array, hi: types.Array) -> Any:
    limits = jnp.stack([lo, hi], axis=2)
    return reductions.inside(leaves, [limits[g] for g in groups], groups)

  def by_blocks(leaves: Any, lo: types.Array, hi: types.Array) -> Any:
    return blocks.inside(_pieces(leaves, groups, lo.dtype), lo, hi)

  return jax.lax.platform_dependent(
    leaves, lo, hi, cpu=by_blocks, default=plainly
  )


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
