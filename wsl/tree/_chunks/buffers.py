"""Reused buffers: fresh memory costs a page fault for every 4 KiB."""

import weakref

import numpy as np

_PAGE = 4096


class Buffers:
  """Page-aligned buffers that return when nothing refers to them any more.

  XLA takes an aligned array as an operand without a copy, and a program may
  return its operand, so that only the garbage collector knows when a buffer is
  free.
  """

  def __init__(self) -> None:
    """Creates an empty pool."""
    self._free: dict[int, list[np.ndarray]] = {}

  def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an uninitialised array."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    free = self._free.setdefault(nbytes, [])
    try:
      room = free.pop()
    except IndexError:
      room = np.empty(nbytes + _PAGE, np.uint8)
    start = -room.ctypes.data % _PAGE
    # The base of this array is a memoryview, not an array: all of its views
    # have it as their base and keep it alive, and with it the finalizer.
    array = np.frombuffer(room.data[start : start + nbytes], np.uint8)
    weakref.finalize(array, free.append, room).atexit = False
    return array.view(dtype).reshape(shape)
