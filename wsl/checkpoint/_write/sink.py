"""Checks, hashes and writes pieces of leaves into the files of a save."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import os
import pathlib
import time
from typing import Any, TypeAlias

import numpy as np

from wsl import tree
from wsl.checkpoint import _digests
from wsl.checkpoint._write import flush, pieces, space

Progress: TypeAlias = Callable[[str, int, int], None]
# A chunk is checked, hashed and written while it is in the CPU's cache.
CHUNK = 1 << 20


@dataclasses.dataclass
class Sink:
  """The file that is written at the moment, and what is known of its leaves.

  Attributes:
    path: the target, for messages.
    check_finite: whether a value that is not finite is an error.
    hashed: whether leaves are hashed.
    journal: a file that takes the hash of each finished leaf.
    progress: see ``save``.
    total: the bytes of all leaves.
    done: the bytes written.
    digests: the hash of each finished leaf.
  """

  path: pathlib.Path
  check_finite: bool
  hashed: bool
  journal: pathlib.Path | None
  progress: Progress | None
  total: int
  done: int = 0
  digests: dict[str, str] = dataclasses.field(default_factory=dict)
  _file: int = -1
  _flusher: flush.Flusher = dataclasses.field(default_factory=flush.Flusher)
  _hash: Any = dataclasses.field(default_factory=_digests.new)

  def open(self, path: pathlib.Path, start: int, header: bytes) -> None:
    """Opens a file to be written from a byte on; writes its header at 0."""
    with space.explained(self.path):
      self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
      _write_all(self._file, memoryview(header))
      os.ftruncate(self._file, start)
      os.lseek(self._file, start, os.SEEK_SET)

  def write(self, batch: Sequence[pieces.Piece]) -> None:
    """Writes pieces of one dtype.

    Raises:
      ValueError: if a value is not finite, naming the leaf.
    """
    if len(batch) == 1:
      self._write_one(batch[0])
    else:
      self._write_many(batch)
    for piece in batch:
      self.done += piece.values.nbytes
      if piece.last and self.progress is not None:
        self.progress(piece.name, self.done, self.total)

  def close(self, header: bytes | None = None) -> None:
    """Completes the file, with another header of the same length if given."""
    with space.explained(self.path):
      if header is not None:
        os.pwrite(self._file, header, 0)
      self._flusher.wait()
      seal(self._file)
    self.abandon()

  def abandon(self) -> None:
    """Closes the file if it is open."""
    with contextlib.suppress(OSError):
      self._flusher.wait()
    if self._file >= 0:
      os.close(self._file)
    self._file = -1

  def _write_one(self, piece: pieces.Piece) -> None:
    """Writes a piece chunk by chunk."""
    step = max(CHUNK // piece.values.itemsize, 1)
    for start in range(0, piece.values.size, step):
      chunk = piece.values[start : start + step]
      if self.check_finite:
        check_finite(piece.name, chunk)
      if self.hashed:
        self._hash.update(chunk.view(np.uint8))
      self._write_bytes(chunk)
    if self.hashed and piece.last:
      self._note([piece.name], [self._hash])
      self._hash = _digests.new()

  def _write_many(self, batch: Sequence[pieces.Piece]) -> None:
    """Writes small leaves, checked and written in one call."""
    values = np.concatenate([piece.values for piece in batch])
    if self.check_finite and not tree.all_finite(values):
      for piece in batch:
        check_finite(piece.name, piece.values)
    self._write_bytes(values)
    if self.hashed:
      hashes = [_digests.new(x.values.view(np.uint8)) for x in batch]
      self._note([piece.name for piece in batch], hashes)

  def _write_bytes(self, values: np.ndarray) -> None:
    """Writes contiguous values."""
    with space.explained(self.path):
      _write_all(self._file, values.view(np.uint8).data)
      self._flusher.wrote(self._file, values.nbytes)

  def _note(self, names: Sequence[str], hashes: Sequence[Any]) -> None:
    """Records the hashes of finished leaves."""
    found = [digest.hexdigest() for digest in hashes]
    self.digests.update(zip(names, found))
    if self.journal is not None:
      with space.explained(self.path):
        _append(self.journal, found)


def check_finite(name: str, values: np.ndarray) -> None:
  """Checks some values of a leaf.

  Raises:
    ValueError: if one is not finite, naming the leaf.
  """
  if not tree.all_finite(values):
    raise ValueError(
      f"save: leaf '{name}' of {values.dtype} has values that are NaN or "
      'infinite: was the result beyond its dtype? give dtype=, or '
      'check_finite=False'
    )


def seal(file: int) -> None:
  """Sets the time of a complete file, and waits until it is on the disk.

  Two files of one size must differ in time, by which readers notice that a file
  was replaced; the clock of a file system ticks in milliseconds.
  """
  now = time.time_ns()
  with contextlib.suppress(PermissionError):  # Some file systems set their own.
    os.utime(file, ns=(now, now))
  os.fsync(file)


def _append(path: pathlib.Path, lines: Sequence[str]) -> None:
  """Adds lines to a file."""
  with open(path, 'a', encoding='ascii') as file:
    file.write(''.join(f'{line}\n' for line in lines))


def _write_all(file: int, view: memoryview) -> None:
  """Writes all bytes; one call may take fewer than given."""
  while view:
    view = view[os.write(file, view) :]
