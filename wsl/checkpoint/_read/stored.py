"""One lazy leaf for all formats: where its bytes are, and how they are read.

``Fetch`` is the ``fetch`` of a ``tree.Stored``. Nearly every leaf is one range
of bytes in a file, in C order. What is not (a transposed tensor, a compressed
member, an array in chunks) is a function that returns the array.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import itertools
import math
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import tree, types
from wsl.checkpoint._read import file_bytes, messages

# Leaves of at most this size are read in blocks of at most that size.
_SMALL = 1 << 12
_BLOCK = 1 << 16


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
    sharding: the sharding of the array; None keeps it on the host.
  """

  name: str
  dtype: np.dtype
  shape: tuple[int, ...]
  file: file_bytes.FileBytes | None
  start: int
  options: Options
  whole: Callable[[], np.ndarray] | None = None
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
    file: Any = self.file
    check = None
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
      return values.reshape(self.shape)
    array = np.ascontiguousarray(self.whole()).reshape(self.shape)
    if self.options.finite:
      self.check(array.reshape(-1), 0)
    return array

  def check(self, values: np.ndarray, start: int) -> None:
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
  read: Any = fetch  # a jax array where it is sharded
  into = fetch.read_into if fetch.whole is None else None
  return tree.Stored(read, fetch.shape, fetch.dtype, into)


def place(leaf: tree.Stored, where: jax.sharding.Sharding) -> tree.Stored:
  """Returns a leaf on demand that is read into a sharding."""
  fetch: Any = leaf.fetch
  fetch = fetch._replace(sharding=where)
  return dataclasses.replace(leaf, fetch=fetch, read_into=None)


def read(params: types.Tree) -> types.Tree:
  """Reads all leaves; small neighbours in a file are read together.

  A leaf of a few bytes costs as much as one of many pages: a look at the file's
  stamp, a system call, a check. Small leaves that follow each other are views
  of one block, of at most ``_BLOCK`` bytes.
  """
  leaves, structure = jax.tree.flatten(params)
  result: list[Any] = [None] * len(leaves)
  small: dict[int, list[tuple[int, int]]] = {}
  for i, leaf in enumerate(leaves):
    fetch = getattr(leaf, 'fetch', None)
    if isinstance(fetch, Fetch) and _is_small(fetch):
      small.setdefault(id(fetch.file), []).append((fetch.start, i))
    else:
      result[i] = tree.read(leaf)
  for places in small.values():
    for block in _blocks(sorted(places), leaves):
      for i, value in zip(block, _read_block([leaves[i].fetch for i in block])):
        result[i] = value
  return jax.tree.unflatten(structure, result)


def _is_small(fetch: Fetch) -> bool:
  """Returns True for a few bytes of a file that stay on the host."""
  alone = fetch.whole is None and fetch.sharding is None
  return alone and fetch.nbytes <= _SMALL


def _blocks(
  places: list[tuple[int, int]], leaves: list[Any]
) -> Iterator[list[int]]:
  """Groups leaves that follow each other in a file, by their bytes."""
  block: list[int] = []
  first = end = -1
  for start, i in places:
    nbytes = leaves[i].fetch.nbytes
    if start != end or end + nbytes - first > _BLOCK:
      if block:
        yield block
      block, first = [], start
    block.append(i)
    end = start + nbytes
  yield block


def _read_block(fetches: list[Fetch]) -> Iterator[np.ndarray]:
  """Reads leaves that follow each other, in one block."""
  first, last = fetches[0], fetches[-1]
  file: Any = first.file
  block = file_bytes.aligned(last.start + last.nbytes - first.start)
  file.read_into(block, first.start, name=first.name)
  flat = block.data
  start = 0
  for dtype, group in itertools.groupby(fetches, key=lambda x: x.dtype):
    run = list(group)
    size = sum(math.prod(x.shape) for x in run)
    values = np.frombuffer(flat, dtype, size, start)
    sound = not first.options.finite or tree.all_finite(values)
    for fetch in run:
      size = math.prod(fetch.shape)
      values = np.frombuffer(flat, dtype, size, start).reshape(fetch.shape)
      if not sound:
        fetch.check(values.reshape(-1), 0)
      yield values
      start += size * dtype.itemsize
