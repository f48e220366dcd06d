"""One lazy leaf for all formats: where its bytes are, and how they are read.

``Fetch`` is the ``fetch`` of a ``tree.Stored``. Nearly every leaf is one range
of bytes in a file, in C order. What is not (a transposed tensor, a compressed
member, an array in chunks) is a function that returns the array.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import tree
from wsl.checkpoint._read import file_bytes, messages, regions


class Options(NamedTuple):
  """What the leaves of a checkpoint share.

  Attributes:
    path: the checkpoint, for messages.
    finite: whether a non-finite value is an error.
    free: see ``file_bytes.Free``.
    metadata: the metadata of the checkpoint.
  """

  path: pathlib.Path
  finite: bool
  free: file_bytes.Free
  metadata: Mapping[str, str]


class Parts(NamedTuple):
  """How an array that is no range of bytes is read in parts.

  Attributes:
    region: returns the entries of an index, a slice for each axis.
    read_into: fills an array with the entries from a flat index on; ``None`` if
      that would read the array again and again.
    held: the bytes that ``read_into`` holds between its calls.
  """

  region: Callable[[tuple[slice, ...]], np.ndarray]
  read_into: Callable[[int, np.ndarray], None] | None = None
  held: int = 0


class Fetch(NamedTuple):
  """A leaf of a checkpoint; calling it reads the leaf.

  Attributes:
    name: the leaf's name in the file.
    dtype: its dtype.
    shape: its shape.
    file: the file that holds its bytes; ``None`` if ``whole`` reads them.
    start: the offset of the first byte in the file.
    options: what the leaves of the checkpoint share.
    whole: returns the array, in any order of its bytes.
    parts: reads parts of an array that ``whole`` reads, if that is possible.
    sharding: the sharding of the array; None keeps it on the host.
  """

  name: str
  dtype: np.dtype
  shape: tuple[int, ...]
  file: file_bytes.FileBytes | None
  start: int
  options: Options
  whole: Callable[[], np.ndarray] | None = None
  parts: Parts | None = None
  sharding: jax.sharding.Sharding | None = None

  @property
  def origin(self) -> pathlib.Path:
    """The file, for messages."""
    return self.options.path if self.file is None else self.file.path

  @property
  def nbytes(self) -> int:
    """The size of the leaf in bytes."""
    return math.prod(self.shape) * self.dtype.itemsize

  def __call__(self) -> Any:
    """Returns the leaf as a numpy array, or as a jax array if sharded.

    Raises:
      ValueError: if the file has changed, or a value is not finite.
    """
    # JAX would narrow 64 bits without x64: they stay on the host.
    if self.sharding is None or tree.narrowed(self.dtype):
      return self._read()
    part: Any = self._region
    if self.parts is None and self.whole is None:
      held: Any = self.sharding.addressable_devices_indices_map(self.shape)
      part = regions.reader(
        self.read_into, self.shape, self.dtype, held.values()
      )
    elif self.parts is None:
      part = self._read().__getitem__
    return jax.make_array_from_callback(self.shape, self.sharding, part)

  def read_into(self, start: int, out: np.ndarray) -> None:
    """Fills ``out [n]`` with the entries from flat index ``start`` on.

    Raises:
      ValueError: if the file has changed, or a value is not finite.
    """
    file: Any = self.file
    check = None
    if self.parts is not None and self.parts.read_into is not None:
      self.parts.read_into(start, out)
      if self.options.finite:
        self.check(out, start)
      return
    if self.options.finite and self.dtype.kind not in 'biu':
      check = lambda chunk, done: self.check(chunk, start + done)
    place = self.start + start * self.dtype.itemsize
    file.read_into(out, place, name=self.name, check=check)

  def _read(self) -> np.ndarray:
    """Reads and checks the whole leaf, in C order."""
    if self.whole is None:
      buffer = file_bytes.aligned(self.nbytes, self.options.free)
      values = buffer.view(self.dtype)
      self.read_into(0, values)
      return self.shaped(values)
    array = self.shaped(np.ascontiguousarray(self.whole()))
    if self.options.finite:
      self.check(array.reshape(-1), 0)
    return array

  def shaped(self, values: np.ndarray) -> np.ndarray:
    """Returns the entries in the leaf's shape.

    Raises:
      ValueError: if NumPy has no array of this shape, of a hundred axes, say.
    """
    try:
      return values.reshape(self.shape)
    except ValueError as error:
      raise ValueError(
        f'load: leaf {messages.quote(self.name)} of {self.origin} has a shape '
        f'that NumPy does not have, {messages.shorten(error)}: leave it out'
      ) from None

  def check(self, values: np.ndarray, start: int) -> None:
    """Raises for the first non-finite value of a chunk, with its index."""
    if not tree.all_finite(values):
      i = _first_bad(values)
      place = np.unravel_index(start + i, self.shape)
      raise self._not_finite(values[i], place)

  def _region(self, index: tuple[slice, ...]) -> np.ndarray:
    """Reads and checks the part of one device."""
    parts: Any = self.parts
    values = parts.region(index)
    if self.options.finite and not tree.all_finite(values):
      i = np.unravel_index(_first_bad(values), values.shape)
      place = [(x.start or 0) + k for x, k in zip(index, i)]
      raise self._not_finite(values[i], place)
    return values

  def _not_finite(self, value: Any, place: Any) -> ValueError:
    """Returns the error for a value and its index."""
    at = [int(k) for k in place]
    return ValueError(
      f'load: leaf {messages.quote(self.name)} of {self.origin} is {value} at '
      f'{at}: leave this model out, or load with check_finite=False'
    )


def _first_bad(values: np.ndarray) -> int:
  """Returns the flat index of the first value that is not finite."""
  with np.errstate(invalid='ignore'):  # NaN of ml_dtypes
    return int(np.flatnonzero(~np.isfinite(values))[0])


def leaf(fetch: Fetch) -> tree.Stored:
  """Returns a leaf on demand, read in chunks too if that is possible."""
  read: Any = fetch  # a jax array where it is sharded
  in_parts = fetch.parts is not None and fetch.parts.read_into is not None
  into = fetch.read_into if fetch.whole is None or in_parts else None
  return tree.Stored(read, fetch.shape, fetch.dtype, into)


def place(leaf: tree.Stored, where: jax.sharding.Sharding) -> tree.Stored:
  """Returns a leaf on demand that is read into a sharding."""
  fetch: Any = leaf.fetch
  fetch = fetch._replace(sharding=where)
  return dataclasses.replace(leaf, fetch=fetch, read_into=None)
