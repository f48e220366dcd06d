"""One array of an item: read whole, by slabs, or the region of a device.

Orbax stores an array in chunks of one shape, which it chooses as the shard of a
device: a chunk is decoded as a whole. A slab is one or more rows of chunks: all
entries whose first indices are those of the chunks. They follow each other in C
order.
"""

import math
import pathlib
import threading
from typing import Any

import numpy as np

from wsl.checkpoint._read.orbax import restore

# Slabs have at least this size: a read has a cost of its own.
_LEAST_BYTES = 1 << 22


class Array:
  """An array that TensorStore opens at its first use.

  Attributes:
    rows: the number of first indices in a slab; 0 if the array is one slab.
  """

  def __init__(
    self,
    item: pathlib.Path,
    spec: dict[str, Any],
    shape: tuple[int, ...],
    dtype: np.dtype,
    chunk: tuple[int, ...] | None,
  ) -> None:
    """Remembers an array; nothing is read.

    Args:
      item: the folder of the item, for messages.
      spec: its TensorStore spec.
      shape: its shape.
      dtype: its dtype.
      chunk: the shape of its chunks, if it is known.
    """
    self._item, self._spec = item, spec
    self._shape, self._dtype = shape, dtype
    self.rows = _rows(shape, dtype, chunk) if shape and chunk else 0
    self._lock = threading.Lock()
    self._opened: Any = None
    self._slab: tuple[int, np.ndarray] | None = None

  @property
  def slab_bytes(self) -> int:
    """Returns the memory of a slab, which ``read_into`` holds."""
    return self.rows * math.prod(self._shape[1:]) * self._dtype.itemsize

  def whole(self) -> np.ndarray:
    """Returns the array."""
    return self.region((slice(None),) * len(self._shape))

  def region(self, index: tuple[slice, ...]) -> np.ndarray:
    """Returns a part of the array; chunks outside of it are not read."""
    if self._opened is None:
      self._opened = open_array(self._item, self._spec)
    try:
      return np.asarray(self._opened[index].read().result())
    except Exception as error:
      raise restore.damaged('load', self._item, error) from None

  def read_into(self, start: int, out: np.ndarray) -> None:
    """Fills ``out [n]`` with the entries from flat index ``start`` on.

    A slab is kept until its last entry has been read, so that reading in order
    decodes each chunk once.
    """
    size = self.rows * math.prod(self._shape[1:])
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
      rows = slice(i * self.rows, min((i + 1) * self.rows, self._shape[0]))
      found = self.region((rows, *(slice(None) for _ in self._shape[1:])))
      self._slab = i, np.ascontiguousarray(found).reshape(-1)
    return self._slab[1]


def _rows(
  shape: tuple[int, ...], dtype: np.dtype, chunk: tuple[int, ...]
) -> int:
  """Returns the number of first indices in a slab; 0 if one slab is all."""
  row = math.prod(shape[1:]) * dtype.itemsize * chunk[0]
  rows = chunk[0] * max(_LEAST_BYTES // max(row, 1), 1)
  return rows if rows < shape[0] else 0


def open_array(item: pathlib.Path, spec: dict[str, Any]) -> Any:
  """Opens an array: its metadata is read."""
  import tensorstore

  try:
    return tensorstore.open(spec, open=True, read=True).result()
  except Exception as error:
    raise restore.damaged('load', item, error) from None
