"""Reads one leaf of a safetensors file into an aligned buffer.

Files are read, not mapped: touched pages of a mapped file count as resident
memory, but a buffer is released with its leaf. XLA takes a buffer that starts
at a multiple of 64 bytes as an operand without a copy.

Fresh memory costs a page fault for every 4 KiB, which takes longer than reading
into it. A model on demand therefore keeps one released buffer, of the size of
its largest leaf, and reads the next leaf into it.
"""

from collections.abc import Mapping
import dataclasses
import io
import pathlib
from typing import Any
import weakref

import jax
import numpy as np

from wsl import tree
from wsl.checkpoint import _format

_ALIGN = 64
# Values are checked chunk by chunk, while a chunk is still in the CPU's cache.
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Fetch:
  """A leaf of a file; calling it reads the leaf.

  Attributes:
    path: the file.
    name: the leaf's name in it.
    entry: its dtype, shape and byte range.
    stamp: size and time stamp of the file when its header was read.
    finite: whether a non-finite value is an error.
    free: a list of at most one released buffer, which the leaves of a model
      share; ``None`` allocates a buffer for each read.
    sharding: the sharding of the array; None keeps it on the host.
    metadata: the metadata of the checkpoint.
  """

  path: pathlib.Path
  name: str
  entry: _format.Entry
  stamp: tuple[int, int]
  finite: bool
  free: list[np.ndarray] | None = dataclasses.field(repr=False, compare=False)
  sharding: jax.sharding.Sharding | None = None
  metadata: Mapping[str, str] = dataclasses.field(
    default_factory=dict, repr=False, compare=False
  )

  def __call__(self) -> Any:
    """Returns the leaf as a numpy array, or as a jax array if sharded.

    Raises:
      ValueError: if the file has changed, or a value is not finite.
    """
    host = self._read()
    # JAX would narrow 64 bits without x64: they stay on the host.
    if self.sharding is None or tree.narrowed(host.dtype):
      return host
    return jax.make_array_from_callback(
      host.shape, self.sharding, lambda index: host[index]
    )

  def _read(self) -> np.ndarray:
    """Reads and checks the leaf in chunks, into one host buffer."""
    values = aligned(self.entry.nbytes, self.free).view(self.entry.dtype)
    self.read_into(0, values)
    return values.reshape(self.entry.shape)

  def read_into(self, start: int, out: np.ndarray) -> None:
    """Fills ``out [n]`` with the entries from flat index ``start`` on.

    Raises:
      ValueError: if the file has changed, or a value is not finite.
    """
    buffer = out.view(np.uint8)
    first = start * self.entry.dtype.itemsize
    with open(self.path, 'rb', buffering=0) as file:
      if _format.stamp_of(file.fileno()) != self.stamp:
        raise ValueError(
          f"load: {self.path} has changed since leaf '{self.name}' was "
          'promised: load it again'
        )
      file.seek(self.entry.start + first)
      for at in range(0, len(buffer), _CHUNK):
        _fill(file, buffer.data[at : at + _CHUNK], self.path)
        if self.finite:
          self._check(buffer[at : at + _CHUNK], first + at)

  def _check(self, chunk: np.ndarray, start: int) -> None:
    """Raises for the first non-finite value of a chunk, with its index."""
    values = chunk.view(self.entry.dtype)
    if not tree.all_finite(values):
      with np.errstate(invalid='ignore'):  # NaN of ml_dtypes
        i = int(np.flatnonzero(~np.isfinite(values))[0])
      flat = start // self.entry.dtype.itemsize + i
      place = [int(k) for k in np.unravel_index(flat, self.entry.shape)]
      raise ValueError(
        f"load: leaf '{self.name}' of {self.path} is {values[i]} at {place}: "
        'leave this model out, or load with check_finite=False'
      )


def _fill(file: io.FileIO, view: memoryview, path: pathlib.Path) -> None:
  """Reads until the view is full; a read may return fewer bytes than asked."""
  while view:
    count = file.readinto(view)
    if not count:
      raise _format.damaged(path, 'it ended while it was read')
    view = view[count:]


def aligned(nbytes: int, free: list[np.ndarray] | None = None) -> np.ndarray:
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
