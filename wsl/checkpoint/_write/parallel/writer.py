"""The thread that writes the regions of a process into the files of a save."""

from collections.abc import Sequence
import concurrent.futures
import os
from typing import Any

import numpy as np

from wsl.checkpoint._read import regions
from wsl.checkpoint._write import flush, sink, space
from wsl.checkpoint._write import stage as stage_lib
from wsl.checkpoint._write.parallel import shares


class Writer:
  """Writes regions while the next leaf is computed.

  The first failure is kept, and nothing is written after it: the processes
  compute leaves together, so that one that fails has to take part.

  Attributes:
    failure: the first error, ``None`` if there is none.
  """

  def __init__(self, stage: stage_lib.Stage, *, check_finite: bool) -> None:
    self.failure: Exception | None = None
    self._stage, self._check_finite = stage, check_finite
    self._files: dict[int, int] = {}
    self._flusher = flush.Flusher()
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._last: concurrent.futures.Future[None] | None = None

  def put(
    self, i: int, start: int, name: str, parts: Sequence[shares.Part]
  ) -> None:
    """Starts to write regions of a leaf, after those of the call before.

    Args:
      i: the number of the file.
      start: the offset of the leaf's first byte in it.
      name: the leaf's name, for messages.
      parts: its regions.
    """
    for part in parts:
      if hasattr(part.values, 'copy_to_host_async'):
        part.values.copy_to_host_async()
    task = self._thread.submit(self._put, i, start, name, parts)
    if self._last is not None:
      self._last.result()
    self._last = task

  def fail(self, error: Exception) -> None:
    """Keeps an error, unless there is an earlier one."""
    self.failure = self.failure or error

  def close(self) -> None:
    """Waits until all regions are on the disk, and closes the files."""
    self._thread.shutdown()
    try:
      with space.explained(self._stage.target.path):
        self._flusher.wait()
        for file in self._files.values():
          if self.failure is None:
            os.fsync(file)
    except OSError as error:
      self.fail(error)
    for file in self._files.values():
      os.close(file)
    self._files = {}

  def _put(
    self, i: int, start: int, name: str, parts: Sequence[shares.Part]
  ) -> None:
    """Writes regions, unless a write has failed."""
    try:
      for runs, values in parts:
        if self.failure is None:
          self._write(self._file(i), start, name, runs, values)
    except Exception as error:
      self.fail(error)

  def _file(self, i: int) -> int:
    """Opens a file, which process 0 has extended to its full size.

    It is opened for writing alone: a network file system then sends the bytes
    that are written, and no whole pages with the bytes of other processes.
    """
    if i not in self._files:
      with space.explained(self._stage.target.path):
        self._files[i] = os.open(self._stage.part(i), os.O_WRONLY)
    return self._files[i]

  def _write(
    self, file: int, start: int, name: str, runs: regions.Runs, values: Any
  ) -> None:
    """Checks a region, and writes each of its runs."""
    host = np.asarray(values, order='C').reshape(-1)
    width, length = host.itemsize, runs.length
    step = max(sink.CHUNK // width, 1)
    if self._check_finite:
      for k in range(0, host.size, step):
        sink.check_finite(name, host[k : k + step])
    data = host.view(np.uint8).data
    with space.explained(self._stage.target.path):
      for k, first in enumerate(runs.starts.tolist()):
        run = data[k * length * width : (k + 1) * length * width]
        for done in range(0, len(run), sink.CHUNK):
          chunk = run[done : done + sink.CHUNK]
          _write_all(file, chunk, start + first * width + done)
          self._flusher.wrote(file, len(chunk))


def _write_all(file: int, view: memoryview, offset: int) -> None:
  """Writes all bytes at an offset; one call may take fewer than given."""
  while view:
    count = os.pwrite(file, view, offset)
    view, offset = view[count:], offset + count
