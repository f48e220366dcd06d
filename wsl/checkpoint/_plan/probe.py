"""A second of measurements: the rates of the disk and of memory."""

from collections.abc import Callable, Sequence
import os
import pathlib
import tempfile
import time
from typing import NamedTuple

import numpy as np

_BLOCK = 1 << 22
_READ, _WRITE, _COMPUTE = 0.4, 0.4, 0.2  # seconds


class Rates(NamedTuple):
  """Bytes for each second.

  Attributes:
    read: from the files, which the system may hold in memory.
    write: to the target's disk, until the bytes are on it.
    memory: moved by an addition of two arrays.
  """

  read: float
  write: float
  memory: float


def measure(files: Sequence[pathlib.Path], folder: pathlib.Path) -> Rates:
  """Measures the rates for about one second.

  Args:
    files: files to read from; without any, the rate of reads is infinite.
    folder: a folder or a file on the disk of the target; it need not exist.
  """
  return Rates(_read(files), _write(folder), _compute())


def _rate(step: Callable[[], int], seconds: float) -> float:
  """Repeats a step that returns the bytes it has moved."""
  start, moved = time.perf_counter(), 0
  while (spent := time.perf_counter() - start) < seconds:
    moved += step()
  return moved / spent


def _read(files: Sequence[pathlib.Path]) -> float:
  """Reads blocks at places that are spread over the files."""
  places = [
    (path, start)
    for path in files
    for start in range(0, path.stat().st_size, _BLOCK)
  ]
  if not places:
    return float('inf')
  order = iter(np.random.default_rng(0).permutation(len(places)).tolist() * 99)
  buffer = bytearray(_BLOCK)

  def step() -> int:
    path, start = places[next(order, 0)]
    with open(path, 'rb', buffering=0) as file:
      file.seek(start)
      return file.readinto(buffer)

  return _rate(step, _READ)


def _write(folder: pathlib.Path) -> float:
  """Writes a temporary file, and waits for the disk."""
  block = np.random.default_rng(0).bytes(_BLOCK)
  while not folder.is_dir():
    folder = folder.parent
  with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
    start = time.perf_counter()
    moved = 0
    while time.perf_counter() - start < _WRITE / 2:
      moved += file.write(block)
    os.fsync(file.fileno())
    return moved / (time.perf_counter() - start)


def _compute() -> float:
  """Adds two arrays that do not fit in the CPU's caches."""
  x, y = (np.ones(_BLOCK, np.float32) for _ in range(2))
  out = np.empty_like(x)

  def step() -> int:
    np.add(x, y, out=out)
    return 3 * out.nbytes

  return _rate(step, _COMPUTE)
