"""Byte ranges of a file, read into aligned buffers.

Files are read, not mapped: touched pages of a mapped file count as resident
memory, but a buffer is released with its leaf. XLA takes a buffer that starts
at a multiple of 64 bytes as an operand without a copy.

Fresh memory costs a page fault for every 4 KiB, which takes longer than reading
into it. A model on demand therefore keeps one released buffer, of the size of
its largest leaf, and reads the next leaf into it.
"""

from collections.abc import Callable
import os
import pathlib
import threading
from typing import TypeAlias
import weakref

import numpy as np

from wsl.checkpoint import _digests
from wsl.checkpoint._read import messages, recorded

# A list of at most one released buffer, which the leaves of a model share;
# ``None`` allocates a buffer for each read.
Free: TypeAlias = list[np.ndarray] | None
Stamp: TypeAlias = tuple[int, int]
_ALIGN = 64
# Values are checked chunk by chunk, while a chunk is still in the CPU's cache.
_CHUNK = 1 << 20
# The most files that stay open between reads; a process may have 1024.
_KEPT = 128
_lock = threading.Lock()
_kept: 'weakref.WeakSet[FileBytes]' = weakref.WeakSet()


class FileBytes:
  """A file whose leaves are read on demand; it stays open between reads.

  Attributes:
    path: the file.
    stamp: size and time stamp of the file when its header was read.
    hashes: the hashes of leaves that the file records, if it does.
  """

  def __init__(
    self,
    path: pathlib.Path,
    stamp: Stamp,
    hashes: recorded.Hashes | None = None,
  ):
    self.path = path
    self.stamp = stamp
    self.hashes = hashes
    self._descriptor: int | None = None

  def read_into(
    self,
    out: np.ndarray,
    start: int,
    *,
    name: str,
    check: Callable[[np.ndarray, int], None] | None = None,
  ) -> None:
    """Fills an array with the bytes of the file from ``start`` on.

    Args:
      out: a contiguous array ``[n]``, of any dtype.
      start: the offset of the first byte in the file.
      name: the leaf, for messages.
      check: called with each chunk of at most 1 MiB and the index of its first
        entry in ``out``, as soon as the chunk is read.

    Raises:
      ValueError: if the file has changed since its header was read, or a leaf
        does not have its recorded hash.
    """
    if self.hashes is not None:
      for leaf in self.hashes.due(start, out.nbytes):
        self._verify(leaf)
        self.hashes.verified(leaf)
    self._read(out, start, name, check)

  def _verify(self, leaf: recorded.Recorded) -> None:
    """Compares the bytes of a whole leaf with the recorded hash."""
    found = _digests.new()
    buffer = np.empty(min(leaf.nbytes, _CHUNK), np.uint8)
    for done in range(0, leaf.nbytes, _CHUNK):
      chunk = buffer[: leaf.nbytes - done]
      self._read(chunk, leaf.start + done, leaf.name, None)
      found.update(chunk)
    if found.hexdigest() != leaf.digest:
      raise ValueError(
        f'load: leaf {messages.quote(leaf.name)} of {self.path} does not have '
        'the SHA-256 that the file records: copy it again'
      )

  def _read(
    self,
    out: np.ndarray,
    start: int,
    name: str,
    check: Callable[[np.ndarray, int], None] | None,
  ) -> None:
    """Fills an array with bytes, see ``read_into``."""
    if stamp_of(os.stat(self.path)) != self.stamp:
      self._raise_changed(name)
    descriptor, owned = self._descriptor, False
    if descriptor is None:
      descriptor, owned = self._open(name)
    width = out.itemsize
    step = _CHUNK // width
    try:
      for done in range(0, len(out), step):
        chunk = out[done : done + step]
        self._fill(descriptor, chunk.view(np.uint8), start + done * width)
        if check is not None:
          check(chunk, done)
    finally:
      if owned:
        os.close(descriptor)

  def _open(self, name: str) -> tuple[int, bool]:
    """Opens the file; returns whether the caller is to close it.

    It stays open if few others do, and no other thread was faster.
    """
    descriptor = os.open(self.path, os.O_RDONLY)
    if stamp_of(os.fstat(descriptor)) != self.stamp:
      os.close(descriptor)
      self._raise_changed(name)
    with _lock:
      if len(_kept) >= _KEPT or self._descriptor is not None:
        return descriptor, True
      self._descriptor = descriptor
      _kept.add(self)
      weakref.finalize(self, os.close, descriptor).atexit = False
    return descriptor, False

  def _fill(self, descriptor: int, chunk: np.ndarray, offset: int) -> None:
    """Reads until the chunk is full; a read may return fewer bytes."""
    view = chunk.data
    while view:
      count = os.preadv(descriptor, [view], offset)
      if not count:
        raise messages.damaged(self.path, 'it ended while it was read')
      view = view[count:]
      offset += count

  def _raise_changed(self, name: str) -> None:
    raise ValueError(
      f'load: {self.path} has changed since leaf {messages.quote(name)} was '
      'promised: load it again'
    )


def stamp_of(status: os.stat_result) -> Stamp:
  """Returns the size and the time stamp of a file."""
  return status.st_size, status.st_mtime_ns


def aligned(nbytes: int, free: Free = None) -> np.ndarray:
  """Returns ``nbytes`` uninitialised bytes that start at a multiple of 64.

  Args:
    nbytes: the size.
    free: a list of at most one released buffer, which is used if it is large
      enough. The buffer returns to the list when the array and all of its views
      are garbage collected. ``None`` allocates memory that is not returned.
  """
  room = _take(free, nbytes + _ALIGN) if free else None
  if room is None:
    room = np.empty(nbytes + _ALIGN, np.uint8)
  start = -room.ctypes.data % _ALIGN
  # A view of this array has it as base, since its own base is a memoryview, not
  # an array: every view keeps it alive, and with it the finalizer.
  array = np.frombuffer(room.data[start : start + nbytes], np.uint8)
  if free is not None:
    weakref.finalize(array, _give, free, room).atexit = False
  return array


def _take(free: list[np.ndarray], nbytes: int) -> np.ndarray | None:
  """Removes the released buffer; returns it if it is large enough."""
  try:
    room = free.pop()
  except IndexError:  # another thread has taken it
    return None
  return room if len(room) >= nbytes else None


def _give(free: list[np.ndarray], room: np.ndarray) -> None:
  """Returns a buffer to the list, which keeps the larger of two."""
  free[:] = [max(room, *free, key=len) if free else room]
