"""The regions of a leaf that devices hold, as runs of its entries in C order.

A region is a slice of each axis. Let ``a`` be the last axis that it does not
hold as a whole. Its entries are then runs of equal length,
``(stop_a - start_a) * prod(shape[a + 1:])``, one for each index of the axes
before ``a``. Rows are one run; columns are one run for each row.

Short gaps between runs are read and dropped (data sieving: Thakur, Gropp and
Lusk, Data sieving and collective I/O in ROMIO, 1999): a read of 4 KiB takes as
long as one of 32 KiB. Long gaps are not read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import itertools
import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from wsl.checkpoint._read import file_bytes

Index: TypeAlias = tuple[slice, ...]
ReadInto: TypeAlias = Callable[[int, np.ndarray], None]
# Bytes between two runs that are read together with them.
_GAP = 1 << 15
# Bytes that are read at once where gaps are read.
_BLOCK = 1 << 22
# Runs of a region that are listed at once.
_LISTED = 1 << 18


class Runs(NamedTuple):
  """The contiguous parts of a region.

  Attributes:
    starts: the flat index of the first entry of each, ascending.
    length: the number of entries of each.
  """

  starts: np.ndarray
  length: int


def runs(shape: tuple[int, ...], index: Index) -> Runs:
  """Returns the contiguous parts of a region, in C order."""
  bounds = key(shape, index)
  axis = _last_part(shape, bounds)
  first, last = bounds[axis] if shape else (0, 1)
  inner = math.prod(shape[axis + 1 :])
  starts = np.asarray([first * inner])
  stride = inner * math.prod(shape[axis : axis + 1])
  for a in range(axis - 1, -1, -1):
    offsets = np.arange(*bounds[a]) * stride
    starts = (offsets[:, None] + starts).reshape(-1)
    stride *= shape[a]
  return Runs(starts, (last - first) * inner)


def _last_part(
  shape: tuple[int, ...], bounds: Sequence[tuple[int, int]]
) -> int:
  """Returns the last axis that a region does not hold as a whole, or 0."""
  parts = [a for a, n in enumerate(shape) if bounds[a] != (0, n)]
  return parts[-1] if parts else 0


def key(shape: tuple[int, ...], index: Index) -> tuple[tuple[int, int], ...]:
  """Returns the bounds of a region, by which equal ones are found."""
  bounds = (s.indices(n)[:2] for s, n in zip(index, shape))
  return tuple((int(first), int(last)) for first, last in bounds)


def extent(bounds: Iterable[tuple[int, int]]) -> tuple[int, ...]:
  """Returns the shape of a region."""
  return tuple(last - first for first, last in bounds)


def reader(
  read_into: ReadInto,
  shape: tuple[int, ...],
  dtype: np.dtype,
  indices: Iterable[Index],
) -> Callable[[Index], np.ndarray]:
  """Returns a function that reads the entries of a region.

  Where short gaps are read, one pass over the file fills all regions, so that
  none is read twice; elsewhere each region is read by itself.

  Args:
    read_into: fills an array with the entries from a flat index on.
    shape: the shape of the leaf.
    dtype: its dtype.
    indices: the regions of all devices of this process.
  """
  wanted = {key(shape, index): index for index in indices}
  pending: dict[Any, np.ndarray] = {}

  def region(index: Index) -> np.ndarray:
    here = key(shape, index)
    if here not in pending:
      chosen = [here]
      count, length = _measure(shape, here)
      # Devices of one row block share its lines; all their runs are short.
      if length < _GAP // dtype.itemsize and count > 1:
        chosen = [k for k in wanted if k not in pending]
      empty = {k: _allocate(dtype, extent(k)) for k in chosen}
      slabs = [_slabs(shape, wanted[k], x) for k, x in empty.items()]
      for parts in itertools.zip_longest(*slabs):
        _fill(read_into, dtype, [part for part in parts if part])
      pending.update(empty)
    return pending[here]

  return region


def _measure(
  shape: tuple[int, ...], bounds: Sequence[tuple[int, int]]
) -> tuple[int, int]:
  """Returns the number of the runs of a region, and their length."""
  sizes, axis = extent(bounds), _last_part(shape, bounds)
  return math.prod(sizes[:axis]), math.prod(sizes[axis:])


def _slabs(
  shape: tuple[int, ...], index: Index, out: np.ndarray
) -> Iterator[tuple[Runs, np.ndarray]]:
  """Yields the runs of a region in parts of some rows, and their places."""
  count, _ = _measure(shape, key(shape, index))
  if count <= _LISTED:
    yield runs(shape, index), out
    return
  first, last, _ = index[0].indices(shape[0])
  step = max(_LISTED * (last - first) // count, 1)
  for row in range(first, last, step):
    rows = slice(row, min(row + step, last))
    yield runs(shape, (rows, *index[1:])), out[row - first :][:step]


def _allocate(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
  """Returns an aligned array without values."""
  buffer = file_bytes.aligned(math.prod(shape) * dtype.itemsize)
  return buffer.view(dtype).reshape(shape)


def _fill(
  read_into: ReadInto, dtype: np.dtype, parts: list[tuple[Runs, np.ndarray]]
) -> None:
  """Reads the runs of several regions, in the order of the file."""
  length = parts[0][0].length
  if not length or not sum(len(r.starts) for r, _ in parts):
    return
  flat = [out.reshape(-1, length) for _, out in parts]
  starts = np.concatenate([r.starts for r, _ in parts])
  which = np.repeat(np.arange(len(parts)), [len(x) for x in flat])
  place = np.concatenate([np.arange(len(x)) for x in flat])
  order = np.argsort(starts, kind='stable')
  starts, which, place = starts[order], which[order], place[order]
  # A span begins after a long gap, and at each multiple of a block.
  block = max(_BLOCK // dtype.itemsize, 1)
  far = np.diff(starts) > length + _GAP // dtype.itemsize
  cuts = far | (np.diff(starts // block) > 0)
  edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(starts)]
  for i, j in itertools.pairwise(edges):
    first = int(starts[i])
    if j == i + 1:
      read_into(first, flat[which[i]][place[i]])
      continue
    span = np.empty(int(starts[j - 1]) + length - first, dtype)
    read_into(first, span)
    lines = np.lib.stride_tricks.sliding_window_view(span, length)
    for k in np.unique(which[i:j]):
      at = i + np.flatnonzero(which[i:j] == k)
      flat[k][place[at]] = lines[starts[at] - first]
