"""Passes over leaves: one reduction of each leaf, or of a few.

A reduction reads its leaves once, whatever the number of ranks and probes, and
reduces shards without gathering them. Sums of several comparisons are one
reduction of several operands: XLA vectorises it on a CPU, where a reduction of
one comparison is scalar code.

On accelerators equal leaves are stacked for it, which XLA fuses into the
reduction and never writes: a program has one kernel for a batch of leaves, and
all batches of one shape share it, as each has its limits in an array of its own
(see ``_separate``). On a CPU the stack would be written.

In a sharded program a search is a loop whose steps differ between groups of
devices, as where densities are mapped over ``candidates``. A step may then send
data within the groups only: reductions do, while ``collective-permute``, to
which slices and pads of a sharded axis are compiled, waits for all devices of
the program.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree._ranks import batches as batches_lib
from wsl.tree._ranks import bits

# An only axis that powers of two hardly divide: each entry is a column, or a
# long one is padded to a multiple of so many runs.
_LONG, _RUNS = 16384, 128


def count(
  leaves: Sequence[types.Array],
  probes: Sequence[types.Array],
  groups: Sequence[int],
  batches: batches_lib.Batches,
) -> types.Array:
  """Counts the entries of G groups, ``[G, K * T, PROBES]``, see ``passes``.

  Args:
    leaves: ``[T, ...]``.
    probes: for each batch of B leaves ``[B, K * T, PROBES]``.
    groups: the group of each leaf, 0 .. G - 1: either all leaves are of one
      group, or each has its own.
    batches: the leaves of each batch.

  Returns:
    int32, or int64 under x64.
  """
  wide = jax.dtypes.canonicalize_dtype(np.int64)
  parts = [
    _count([leaves[i] for i in batch], limits).astype(wide)
    for batch, limits in zip(batches, probes, strict=True)
  ]
  return _by_group(jnp.add, parts, groups, batches)


def inside(
  leaves: Sequence[types.Array],
  limits: Sequence[types.Array],
  groups: Sequence[int],
  batches: batches_lib.Batches,
  *,
  columns: int,
  pad: bool = False,
) -> types.Array:
  """Finds both ends in each column, ``[G, 2, K * T, C]``, see ``passes``.

  Args:
    leaves: ``[T, ...]``.
    limits: for each batch of B leaves lo and hi - lo, ``[B, K * T, 2]``.
    groups: the group of each leaf, as in ``count``.
    batches: the leaves of each batch.
    columns: the most columns C.
    pad: whether there are always so many; else a small model has fewer.
  """
  # Of a model, each leaf has columns in proportion to its entries, at least so
  # many in all, as the next power of two below its part is taken.
  sizes = [leaves[batch[0]].size for batch in batches]
  whole, total = not any(groups), sum(leaf.size for leaf in leaves)
  own = [2 * columns * n // total if whole else columns for n in sizes]
  parts = [
    _inside(
      [leaves[i] for i in batch],
      pair[..., 0],
      pair[..., 1],
      most=min(max(most, 1), columns),
    )
    for batch, pair, most in zip(batches, limits, own, strict=True)
  ]
  if whole:
    rows = [jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], -1) for x in parts]
    parts = [jnp.concatenate(rows, 2)[None] if rows[1:] else rows[0][None]]
  width = columns if pad else min(max(x.shape[-1] for x in parts), columns)
  fold = lambda x: x if x.shape[-1] == width else _fold(x, width=width)
  found = [*map(fold, parts)]
  return found[0] if whole else _in_order(found, groups, batches)


@jax.jit
def _count(leaves: Sequence[types.Array], probes: types.Array) -> types.Array:
  """Counts the entries of B equal leaves, ``[B, K * T, PROBES]``."""
  entries = bits.of(jnp.stack(leaves), probes.dtype)
  small = leaves[0].size // len(leaves[0]) < 2**31
  whole = np.int32 if small else np.int64
  limits = _by_rank(probes, entries)
  reached = [
    (entries >= rows[..., j]).astype(whole)
    for rows in limits
    for j in range(probes.shape[2])
  ]
  counts = _reduce([jnp.add] * len(reached), reached, range(2, entries.ndim))
  found = jnp.stack(counts, axis=1)  # [B, K * PROBES, T]
  found = found.reshape(len(leaves), len(limits), -1, found.shape[2])
  return found.swapaxes(2, 3).reshape(probes.shape)


@functools.partial(jax.jit, static_argnames='most')
def _inside(
  leaves: Sequence[types.Array],
  lo: types.Array,
  width: types.Array,
  *,
  most: int,
) -> types.Array:
  """Finds both ends in each column of leaves, ``[B, 2, K * T, columns]``."""
  unsigned = np.dtype(f'uint{8 * lo.dtype.itemsize}')
  entries = _runs(bits.of(jnp.stack(leaves), lo.dtype), most).view(unsigned)
  # An entry x of [lo, hi) is written as x - hi < 0, all others as 0. They are
  # clipped, as x - lo is at least hi - lo for them if it is read as unsigned,
  # and not compared: with one use of its entries XLA does not store a leaf.
  # Zeros are the greatest integers, and the least unsigned ones.
  rows = (_by_rank(y.view(unsigned), entries) for y in (lo, width))
  places = [
    jnp.minimum(entries - first, span) - span for first, span in zip(*rows)
  ]
  number = len(places)
  found = _reduce(
    [jnp.minimum] * number + [jnp.maximum] * number,
    [x.view(lo.dtype) for x in places] + places,
    [entries.ndim - 1],
  )
  # [B, K, T, ...] to [B, K * T, columns].
  least, greatest = (
    jnp.stack(x, axis=1).reshape(*lo.shape, -1).view(lo.dtype)
    for x in (found[:number], found[number:])
  )
  above = jnp.where(greatest == 0, 0, greatest + width[..., None] + 1)
  return jnp.stack([-least, above], axis=1)


def _reduce(
  combine: Sequence[Any], operands: Sequence[types.Array], axes: Sequence[int]
) -> list[types.Array]:
  """Reduces integers from 0, all computed from one leaf, by one kernel."""
  each = lambda xs, ys: [f(x, y) for f, x, y in zip(combine, xs, ys)]
  zeros = [np.zeros((), x.dtype) for x in operands]
  return jax.lax.reduce(list(operands), zeros, each, tuple(axes))


def _runs(x: types.Array, most: int) -> types.Array:
  """Splits the last axis ``[B, T, ..., n]`` in runs; each of them is a column.

  A reduction of contiguous entries reads a leaf once, while that of another
  axis would transpose it first. The parts of a sharded axis stay shards. There
  are at most so many columns, unless the other axes are more.
  """
  x = x[..., None] if x.ndim == 2 else x
  *shape, n = x.shape
  rows, runs = math.prod(shape[2:]), 1
  while not n % (2 * runs) and 2 * runs * rows <= most:
    runs *= 2
  if x.ndim == 3 and 2 * runs <= min(most, n):
    if n <= _LONG:
      return x[..., None]
    runs = min(most, _RUNS)
    pad = [(0, 0), (0, 0), (0, -n % runs)]
    x = jnp.pad(x, pad, constant_values=-1)
  return x.reshape(*shape, runs, -1)


@functools.partial(jax.jit, static_argnames='width')
def _fold(x: types.Array, *, width: int) -> types.Array:
  """Combines or pads columns, ``[..., n] -> [..., width]``."""
  n = x.shape[-1]
  parts = -(-n // width)
  if n % width:
    # Padded by a gather, which each shard answers for its own columns.
    place = np.arange(parts * width)
    x = jnp.where(place < n, x[..., np.minimum(place, n - 1)], 0)
  return x.reshape(*x.shape[:-1], parts, width).max(-2)


def _by_rank(limits: types.Array, entries: types.Array) -> list[types.Array]:
  """Splits ``[B, K * T, ...]`` in K rows ``[B, T, 1, ..., 1, ...]``."""
  number, models = entries.shape[:2]
  ones = (1,) * (entries.ndim - 2)
  rows = limits.reshape(number, -1, models, *ones, *limits.shape[2:])
  return [rows[:, k] for k in range(rows.shape[1])]


def _by_group(
  combine: Any,
  parts: Sequence[types.Array],
  groups: Sequence[int],
  batches: batches_lib.Batches,
) -> types.Array:
  """Combines the rows of all leaves, or orders them by their groups."""
  if not any(groups):
    parts = [combine.reduce(part, axis=0) for part in parts]
    return functools.reduce(combine, parts)[None]
  return _in_order(parts, groups, batches)


def _in_order(
  parts: Sequence[types.Array],
  groups: Sequence[int],
  batches: batches_lib.Batches,
) -> types.Array:
  """Joins the rows of all leaves in the order of their groups."""
  order = np.argsort([groups[i] for batch in batches for i in batch])
  rows = jnp.concatenate(parts)
  return rows if np.all(np.diff(order) > 0) else rows[order]
