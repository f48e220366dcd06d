"""Reading one leaf: a plain read into an aligned buffer.

Nothing is mapped: touched pages of a mapped file count as resident memory, a
buffer is free as soon as its leaf is gone. One that starts at a multiple of 64
bytes goes into a jitted program without a copy.
"""

import dataclasses
import functools
import io
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl.checkpoint import _buffers, _format

# Read and checked while it still lies in the cache.
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Fetch:
  """A leaf of a file; calling it reads the leaf.

  Attributes:
    path: the file.
    name: the leaf's name in it.
    entry: its dtype, shape and place.
    stamp: size and time stamp of the file when its header was read.
    finite: whether a non-finite value is an error.
    free: holds the model's buffer to read into; ``None`` for a fresh one.
    sharding: where to put the array; None keeps it on the host.
  """

  path: pathlib.Path
  name: str
  entry: _format.Entry
  stamp: tuple[int, int]
  finite: bool
  free: list[np.ndarray] | None = dataclasses.field(repr=False, compare=False)
  sharding: jax.sharding.Sharding | None = None

  def __call__(self) -> Any:
    """Returns the leaf as a numpy array, or as a jax array if sharded.

    Raises:
      ValueError: if the file has changed, or a value is not finite.
    """
    host = self._read()
    if self.sharding is None:
      return host
    return jax.make_array_from_callback(
      host.shape, self.sharding, lambda index: host[index]
    )

  def _read(self) -> np.ndarray:
    buffer = _buffers.aligned(self.entry.nbytes, self.free)
    view = buffer.data
    with open(self.path, 'rb', buffering=0) as file:
      if _format.stamp_of(file.fileno()) != self.stamp:
        raise ValueError(
          f"load: {self.path} has changed since leaf '{self.name}' was "
          'promised: load it again'
        )
      file.seek(self.entry.start)
      for start in range(0, len(buffer), _CHUNK):
        _fill(file, view[start : start + _CHUNK], self.path)
        if self.finite:
          self._check(buffer[start : start + _CHUNK], start)
    return buffer.view(self.entry.dtype).reshape(self.entry.shape)

  def _check(self, chunk: np.ndarray, start: int) -> None:
    values = chunk.view(self.entry.dtype)
    if not all_finite(values):
      i = int(np.flatnonzero(~_finite(values))[0])
      flat = start // self.entry.dtype.itemsize + i
      place = [int(k) for k in np.unravel_index(flat, self.entry.shape)]
      raise ValueError(
        f"load: leaf '{self.name}' of {self.path} is {values[i]} at {place}: "
        'leave this model out, or load with check_finite=False'
      )


def all_finite(values: np.ndarray) -> bool:
  """Says whether all values of a 1-axis array are finite.

  The magnitude's bits of an infinity or a NaN are the largest there are. Read
  as signed integers, the largest positive values come out on top; read as
  unsigned ones, the largest negative values do: two maxima, no temporary.

  Args:
    values: ``[n]``, n > 0, of any dtype.
  """
  if values.dtype == np.complex64:
    values = values.view(np.float32)
  infinity = _infinity(values.dtype)
  if infinity is None:
    return bool(_finite(values).all())
  width = 8 * values.itemsize
  return bool(
    values.view(f'i{values.itemsize}').max() < infinity
    and values.view(f'u{values.itemsize}').max() < infinity + (1 << width - 1)
  )


def _finite(values: np.ndarray) -> np.ndarray:
  with np.errstate(invalid='ignore'):  # The narrow floats warn of a NaN.
    return np.isfinite(values)


@functools.cache
def _infinity(dtype: np.dtype) -> int | None:
  """Returns the bits of +inf, if the dtype has one."""
  if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize == 1:
    return None
  return int(np.full(1, np.inf, dtype).view(f'u{dtype.itemsize}')[0])


def _fill(file: io.FileIO, view: memoryview, path: pathlib.Path) -> None:
  while view:
    count = file.readinto(view)
    if not count:
      raise _format.damaged(path, 'it ended while it was read')
    view = view[count:]
