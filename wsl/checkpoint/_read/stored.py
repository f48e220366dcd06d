"""One lazy leaf for all formats: where its bytes are, and how they are read.

``Fetch`` is the ``fetch`` of a ``tree.Stored``. Nearly every leaf is one range
of bytes in a file, in C order (``Range``). What is not (a transposed tensor, a
compressed member, an array in chunks) is a function that returns the array.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import tree
from wsl.checkpoint._read import file_bytes, messages


class Range(NamedTuple):
  """The bytes of a leaf in C order: a file and the offset of the first."""

  file: file_bytes.FileBytes
  start: int


class Options(NamedTuple):
  """What the leaves of a checkpoint share.

  Attributes:
    finite: whether a non-finite value is an error.
    free: see ``file_bytes.Free``.
    metadata: the metadata of the checkpoint.
  """

  finite: bool
  free: file_bytes.Free
  metadata: Mapping[str, str]


class Fetch(NamedTuple):
  """A leaf of a checkpoint; calling it reads the leaf.

  Attributes:
    name: the leaf's name in the file.
    dtype: its dtype.
    shape: its shape.
    source: the range of its bytes, or a function that returns the array.
    origin: the file, for messages.
    options: what the leaves of the checkpoint share.
    sharding: the sharding of the array; None keeps it on the host.
  """

  name: str
  dtype: np.dtype
  shape: tuple[int, ...]
  source: Range | Callable[[], np.ndarray]
  origin: Any
  options: Options
  sharding: jax.sharding.Sharding | None = None

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

  def read_into(self, start: int, out: np.ndarray) -> None:
    """Fills ``out [n]`` with the entries from flat index ``start`` on.

    Raises:
      ValueError: if the file has changed, or a value is not finite.
    """
    source: Any = self.source  # a Range, see ``leaf``
    check = None
    if self.options.finite and self.dtype.kind not in 'biu':
      check = lambda chunk, done: self._check(chunk, start + done)
    source.file.read_into(
      out,
      source.start + start * self.dtype.itemsize,
      name=self.name,
      check=check,
    )

  def _read(self) -> np.ndarray:
    """Reads and checks the whole leaf, in C order."""
    if isinstance(self.source, Range):
      nbytes = math.prod(self.shape) * self.dtype.itemsize
      buffer = file_bytes.aligned(nbytes, self.options.free)
      values = buffer.view(self.dtype)
      self.read_into(0, values)
      return values.reshape(self.shape)
    array = np.ascontiguousarray(self.source()).reshape(self.shape)
    if self.options.finite:
      self._check(array.reshape(-1), 0)
    return array

  def _check(self, values: np.ndarray, start: int) -> None:
    """Raises for the first non-finite value of a chunk, with its index."""
    if not tree.all_finite(values):
      with np.errstate(invalid='ignore'):  # NaN of ml_dtypes
        i = int(np.flatnonzero(~np.isfinite(values))[0])
      place = [int(k) for k in np.unravel_index(start + i, self.shape)]
      raise ValueError(
        f'load: leaf {messages.quote(self.name)} of {self.origin} is '
        f'{values[i]} at {place}: leave this model out, or load with '
        'check_finite=False'
      )


def leaf(fetch: Fetch) -> tree.Stored:
  """Returns a leaf on demand; a range of bytes is read in chunks too."""
  flat = fetch.read_into if isinstance(fetch.source, Range) else None
  read: Any = fetch  # a jax array where it is sharded
  return tree.Stored(read, fetch.shape, fetch.dtype, flat)


def place(leaf: tree.Stored, where: jax.sharding.Sharding) -> tree.Stored:
  """Returns a leaf on demand that is read into a sharding."""
  fetch: Any = leaf.fetch
  fetch = fetch._replace(sharding=where)
  return dataclasses.replace(leaf, fetch=fetch, read_into=None)


def origin(leaf: tree.Stored) -> Any:
  """Returns the file of a leaf."""
  fetch: Any = leaf.fetch
  return fetch.origin
