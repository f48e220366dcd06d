"""Passes over leaves: one reduction of each leaf.

A reduction reads its leaf once, whatever the number of ranks and probes, and
reduces shards without gathering them. Sums of several comparisons are one
reduction of several operands: XLA vectorises it on a CPU, where a reduction of
one comparison is scalar code. A leaf has its limits in an array of its own:
kernels of equal leaves are then equal, and are compiled once on accelerators
(see ``_separate``).

In a sharded program a search is a loop whose steps differ between groups of
devices, as where densities are mapped over ``candidates``. A step may then send
data within the groups only: reductions do, while ``collective-permute``, to
which slices and pads of a sharded axis are compiled, waits for all devices of
the program.
"""

from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree._ranks import bits

COLUMNS = 16384
# A long axis, if it is the only one, is padded to a multiple of so many runs.
_RUNS = 128


def count(
  leaves: Sequence[types.Array],
  probes: Sequence[types.Array],
  groups: Sequence[int],
) -> types.Array:
  """Counts the entries of G groups, ``[G, K * T, PROBES]``, see ``passes``.

  Args:
    leaves: ``[T, ...]``.
    probes: for each leaf ``[K * T, PROBES]``.
    groups: the group of each leaf, 0 .. G - 1.

  Returns:
    int32, or int64 under x64.
  """
  wide = jax.dtypes.canonicalize_dtype(np.int64)
  parts = [_count(x, y).astype(wide) for x, y in zip(leaves, probes)]
  return _by_group(jnp.add, parts, groups)


def inside(
  leaves: Sequence[types.Array],
  limits: Sequence[types.Array],
  groups: Sequence[int],
) -> types.Array:
  """Finds both ends in each column, ``[G, 2, K * T, COLUMNS]``, see ``passes``.

  Args:
    leaves: ``[T, ...]``.
    limits: for each leaf lo and hi, ``[K * T, 2]``.
    groups: the group of each leaf, 0 .. G - 1.
  """
  parts = [_inside(x, y[:, 0], y[:, 1]) for x, y in zip(leaves, limits)]
  return _by_group(jnp.maximum, parts, groups)


@jax.jit
def _count(x: types.Array, probes: types.Array) -> types.Array:
  """Counts the entries of one leaf, ``[K * T, PROBES]``."""
  entries = bits.of(x, probes.dtype)
  limits = _by_rank(probes.T, entries)
  whole = np.int32 if x.size // len(x) < 2**31 else np.int64
  reached = [(entries >= y).astype(whole) for y in limits]
  counts = _reduce(jnp.add, reached, range(1, x.ndim))
  return jnp.stack(counts).reshape(probes.T.shape).T


@jax.jit
def _inside(x: types.Array, lo: types.Array, hi: types.Array) -> types.Array:
  """Finds both ends in each column of one leaf, ``[2, K * T, COLUMNS]``."""
  entries = _runs(bits.of(x, lo.dtype))
  pairs = zip(_by_rank(lo, entries), _by_rank(hi, entries))
  found = [end for pair in pairs for end in _ends(entries, *pair)]
  found = _reduce(jnp.maximum, found, [entries.ndim - 1])
  ends = jnp.stack(found).reshape(len(lo) // len(x), 2, len(x), -1)
  return _fold(jnp.moveaxis(ends, 1, 0).reshape(2, len(lo), -1))


def _reduce(
  combine: Any, operands: Sequence[types.Array], axes: Sequence[int]
) -> list[types.Array]:
  """Reduces integers that are all computed from one leaf, by one kernel."""
  both = lambda x, y: [combine(a, b) for a, b in zip(x, y)]
  zeros = [np.zeros((), x.dtype) for x in operands]
  return jax.lax.reduce(list(operands), zeros, both, tuple(axes))


def _ends(
  x: types.Array, lo: types.Array, hi: types.Array
) -> tuple[types.Array, types.Array]:
  """Returns each entry's distance to both ends of the bracket, 0 outside."""
  found = (x >= lo) & (x < hi)
  none = jnp.zeros((), lo.dtype)
  return jnp.where(found, hi - x, none), jnp.where(found, x - lo + 1, none)


def _runs(x: types.Array) -> types.Array:
  """Splits the last axis ``[T, ..., n]`` in runs; each of them is a column.

  A reduction of contiguous entries reads a leaf once, while that of another
  axis would transpose it first. The parts of a sharded axis stay shards.
  """
  x = x[:, None] if x.ndim == 1 else x
  *shape, n = x.shape
  if x.ndim == 2 and n <= COLUMNS:
    return x[..., None]
  if x.ndim == 2 and n % _RUNS:
    n = -(-n // _RUNS) * _RUNS
    x = jnp.pad(x, [(0, 0), (0, n - x.shape[1])], constant_values=-1)
  rows, runs = math.prod(shape[1:]), 1
  while not n % (2 * runs) and 2 * runs * rows <= COLUMNS:
    runs *= 2
  return x.reshape(*shape, runs, n // runs)


def _fold(x: types.Array) -> types.Array:
  """Combines or pads columns, ``[2, R, n] -> [2, R, COLUMNS]``."""
  n = x.shape[2]
  parts = -(-n // COLUMNS)
  if n % COLUMNS:
    # Padded by a gather, which each shard answers for its own columns.
    place = np.arange(parts * COLUMNS)
    x = jnp.where(place < n, x[:, :, np.minimum(place, n - 1)], 0)
  return x.reshape(*x.shape[:2], parts, COLUMNS).max(2)


def _by_rank(rows: types.Array, like: types.Array) -> list[types.Array]:
  """Splits ``[..., K * T]`` in rows of T models, of the rank of a leaf."""
  return list(rows.reshape(-1, len(like), *(1,) * (like.ndim - 1)))


def _by_group(
  combine: Any, parts: Sequence[types.Array], groups: Sequence[int]
) -> types.Array:
  """Combines the parts of each group, and stacks the groups."""
  found: list[Any] = [None] * (max(groups) + 1)
  for part, g in zip(parts, groups):
    found[g] = part if found[g] is None else combine(found[g], part)
  return jnp.stack(found)
