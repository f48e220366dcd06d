"""Buffers for reading: aligned, and used again for the next leaf.

Fresh memory costs a page fault for every 4 KiB, which takes longer than to
fill it. So a model that is read on demand keeps one buffer that nobody looks at
any more, of the size of its largest leaf.
"""

import weakref

import numpy as np

_ALIGN = 64


def aligned(nbytes: int, free: list[np.ndarray] | None = None) -> np.ndarray:
  """Returns ``nbytes`` uninitialised bytes that start at a multiple of 64.

  XLA takes such an array as an operand without a copy.

  Args:
    nbytes: the size.
    free: holds a buffer to take, or none; it is given back when the array, and
      all that is made of it, is gone. ``None`` for memory of its own.
  """
  room = _take(free, nbytes + _ALIGN) if free else None
  if room is None:
    room = np.empty(nbytes + _ALIGN, np.uint8)
  start = -room.ctypes.data % _ALIGN
  # The base of a view of this array is this array, since its own base is no
  # array: whatever is made of it keeps it alive.
  array = np.frombuffer(room.data[start : start + nbytes], np.uint8)
  if free is not None:
    weakref.finalize(array, _give, free, room).atexit = False
  return array


def _take(free: list[np.ndarray], nbytes: int) -> np.ndarray | None:
  """Takes the buffer; if it is too small, it makes way for a larger one."""
  try:
    room = free.pop()
  except IndexError:  # Another thread has just taken it.
    return None
  return room if len(room) >= nbytes else None


def _give(free: list[np.ndarray], room: np.ndarray) -> None:
  """Keeps the larger of two buffers."""
  free[:] = [max(room, *free, key=len) if free else room]
