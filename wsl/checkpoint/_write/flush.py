"""Brings files to the disk: data while more is written, and names."""

import concurrent.futures
import contextlib
import os
import pathlib

# Bytes of one pass: a wait for the disk at the end takes as long as the last.
_PASS = 128 << 20


class Flusher:
  """A thread that flushes the file that is written; it starts when needed."""

  def __init__(self) -> None:
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._running: concurrent.futures.Future[None] | None = None
    self._written = 0

  def wrote(self, file: int, nbytes: int) -> None:
    """Counts written bytes; flushes them if they are many.

    Raises:
      OSError: if an earlier pass has failed. The system reports it once.
    """
    self._written += nbytes
    busy = self._running is not None and not self._running.done()
    if self._written >= _PASS and not busy:
      self.wait()
      self._written = 0
      self._running = self._thread.submit(os.fsync, file)

  def wait(self) -> None:
    """Waits for a running pass.

    Raises:
      OSError: if it fails.
    """
    running, self._running = self._running, None
    if running is not None:
      running.result()


def names(folder: pathlib.Path) -> None:
  """Waits until the names in a folder are on the disk."""
  with contextlib.suppress(OSError):  # Not every file system does this.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)
