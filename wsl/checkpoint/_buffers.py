"""Buffers for reading: aligned, and used again while a save streams.

Fresh memory costs a page fault for every 4 KiB, which takes longer than to
fill it. Within ``reuse``, a buffer that nobody looks at any more is handed out
again; no more of them exist than one leaf's expression needs at once.
"""

from collections.abc import Iterator
import contextlib
import contextvars
import weakref

import numpy as np

_ALIGN = 64
_free: contextvars.ContextVar[list[np.ndarray] | None] = contextvars.ContextVar(
  'free buffers', default=None
)


@contextlib.contextmanager
def reuse() -> Iterator[None]:
  """Within this context, ``aligned`` hands out buffers again."""
  token = _free.set([])
  try:
    yield
  finally:
    _free.reset(token)


def aligned(nbytes: int) -> np.ndarray:
  """Returns ``nbytes`` uninitialised bytes that start at a multiple of 64.

  XLA takes such an array as an operand without a copy.
  """
  free = _free.get()
  room = None if free is None else _take(free, nbytes)
  if room is None:
    room = np.empty(nbytes + _ALIGN, np.uint8)
  start = -room.ctypes.data % _ALIGN
  # Whatever is made of this array keeps it alive, so that its end is the
  # moment when the room is free: a base that is no array stays the base.
  array = np.frombuffer(room.data[start : start + nbytes], np.uint8)
  if free is not None:
    weakref.finalize(array, free.append, room).atexit = False
  return array


def _take(free: list[np.ndarray], nbytes: int) -> np.ndarray | None:
  """Takes a free buffer that is large enough, or lets the smallest one go."""
  free.sort(key=len)
  for i, room in enumerate(free):
    if len(room) >= nbytes + _ALIGN:
      return free.pop(i)
  if free:
    free.pop(0)
  return None
