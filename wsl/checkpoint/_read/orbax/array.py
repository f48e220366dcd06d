"""One array of an item: read whole, by slabs, or the region of a device.

Orbax stores an array in chunks of one shape, which it chooses as the shard of a
device: a chunk is decoded as a whole. A slab is one or more rows of chunks: all
entries whose first indices are those of the chunks. They follow each other in C
order.
"""

from collections.abc import Iterable, Iterator, Sequence
import math
import pathlib
import threading
from typing import Any

import numpy as np

from wsl.checkpoint import _shard_digests
from wsl.checkpoint._read.orbax import restore

# Slabs have at least this size: a read has a cost of its own.
_LEAST_BYTES = 1 << 22


class Array:
  """An array that TensorStore opens at its first use.

  Attributes:
    name: the name of the leaf.
    shape: its shape.
    dtype: its dtype.
    rows: the number of first indices in a slab; 0 if the array is one slab.
  """

  def __init__(
    self,
    item: pathlib.Path,
    name: str,
    spec: dict[str, Any],
    shape: tuple[int, ...],
    dtype: np.dtype,
    chunk: tuple[int, ...] | None,
    shards: Iterable[_shard_digests.Shard] = (),
    caller: str = 'load',
  ) -> None:
    """Remembers an array; nothing is read.

    Args:
      item: the folder of the item, for messages.
      name: see above.
      spec: its TensorStore spec.
      shape: see above.
      dtype: see above.
      chunk: the shape of its chunks, if it is known.
      shards: its recorded hashes; each is verified before the first use of an
        entry of the shard.
      caller: the function that error messages name.
    """
    self._item, self.name, self._spec = item, name, spec
    self._caller, self._due = caller, list(shards)
    self.shape, self.dtype = shape, dtype
    self.rows = _rows(shape, dtype, chunk) if shape and chunk else 0
    self._lock = threading.Lock()
    self._opened: Any = None
    self._slab: tuple[int, np.ndarray] | None = None

  @property
  def slab_bytes(self) -> int:
    """Returns the memory of a slab, which ``read_into`` holds."""
    return self.rows * math.prod(self.shape[1:]) * self.dtype.itemsize

  def whole(self) -> np.ndarray:
    """Returns the array."""
    return self.region((slice(None),) * len(self.shape))

  def region(self, index: tuple[slice, ...]) -> np.ndarray:
    """Returns a part of the array; chunks outside of it are not read.

    Raises:
      ValueError: if a shard of it does not have its recorded hash.
    """
    values = self._read(index)
    for shard in [x for x in self._due if x.overlaps(index)]:
      place = shard.within(index)
      self._verify(shard, None if place is None else values[place])
    return values

  def verify(self, indices: Sequence[tuple[slice, ...]]) -> None:
    """Verifies the shards that have entries in one of the regions."""
    for shard in list(self._due):
      if any(map(shard.overlaps, indices)):
        self._verify(shard, None)

  def _verify(
    self, shard: _shard_digests.Shard, values: np.ndarray | None
  ) -> None:
    """Verifies a shard, whose values are read if they are not given."""
    parts = self._slabs(shard) if values is None else [values]
    if _shard_digests.of(parts) != shard.digest:
      raise _shard_digests.wrong(self._caller, self.name, self._item)
    self._due = [x for x in self._due if x != shard]

  def _slabs(self, shard: _shard_digests.Shard) -> Iterator[np.ndarray]:
    """Reads a shard slab by slab; at once if the array has no slabs."""
    if not self.rows:
      yield self._read(shard.region)
      return
    first, stop = shard.start[0], shard.stop[0]
    for start in range(first, stop, self.rows):
      rows = slice(start, min(start + self.rows, stop))
      yield self._read((rows, *shard.region[1:]))

  def _read(self, index: tuple[slice, ...]) -> np.ndarray:
    """Reads a part of the array."""
    try:
      if self._opened is None:
        self._opened = open_array(self._spec)
      return np.asarray(self._opened[index].read().result())
    except Exception as error:
      raise restore.damaged(
        self._caller, self._item, error, self.name
      ) from None

  def read_into(self, start: int, out: np.ndarray) -> None:
    """Fills ``out [n]`` with the entries from flat index ``start`` on.

    A slab is kept until its last entry has been read, so that reading in order
    decodes each chunk once.
    """
    size = self.rows * math.prod(self.shape[1:])
    with self._lock:
      done = 0
      while done < out.size:
        i, offset = divmod(start + done, size)
        slab = self._read_slab(i)
        piece = slab[offset : offset + out.size - done]
        out[done : done + piece.size] = piece
        done += piece.size
        if offset + piece.size == slab.size:
          self._slab = None

  def _read_slab(self, i: int) -> np.ndarray:
    """Returns the entries of the i-th slab."""
    if self._slab is None or self._slab[0] != i:
      self._slab = None  # Two slabs are never in memory.
      rows = slice(i * self.rows, min((i + 1) * self.rows, self.shape[0]))
      found = self.region((rows, *(slice(None) for _ in self.shape[1:])))
      self._slab = i, np.ascontiguousarray(found).reshape(-1)
    return self._slab[1]


def _rows(
  shape: tuple[int, ...], dtype: np.dtype, chunk: tuple[int, ...]
) -> int:
  """Returns the number of first indices in a slab; 0 if one slab is all."""
  row = math.prod(shape[1:]) * dtype.itemsize * chunk[0]
  rows = chunk[0] * max(_LEAST_BYTES // max(row, 1), 1)
  return rows if rows < shape[0] else 0


def open_array(spec: dict[str, Any]) -> Any:
  """Opens an array: its metadata is read."""
  import tensorstore

  return tensorstore.open(spec, open=True, read=True).result()
