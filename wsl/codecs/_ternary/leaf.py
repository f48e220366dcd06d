"""A leaf of values -c, 0 and c, stored as Rice codes."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from wsl import tree, types
from wsl.codecs._ternary import rice


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('data', 'index', 'value'),
  meta_fields=('shape', 'dtype'),
)
@dataclasses.dataclass(frozen=True)
class Ternary:
  """A leaf of which every entry is -c, 0 or c; ``compeft`` makes it.

  Attributes:
    data: codes of places and signs, ``[bytes]``, uint8; may be on demand.
    index: three numbers for each chunk of 2^18 entries, ``[chunks, 3]``.
    value: c, a scalar.
    shape: the shape of the leaf.
    dtype: the name of its dtype.
  """

  data: Any
  index: Any
  value: Any
  shape: tuple[int, ...]
  dtype: str

  @property
  def size(self) -> int:
    """Returns the number of entries."""
    return math.prod(self.shape)


def decode(name: str, leaf: Ternary) -> tree.Stored:
  """Returns the leaf on demand; chunks are decoded as they are read."""
  if tree.is_traced(leaf):
    raise ValueError(
      f"decode: leaf '{name}' is ternary, which the host decodes: call decode "
      'outside of jit'
    )
  dtype = np.dtype(leaf.dtype)
  held: dict[int, np.ndarray] = {}

  def read_into(start: int, out: np.ndarray) -> None:
    _read_into(name, leaf, held, start, out)

  def fetch() -> np.ndarray:
    out = np.empty(leaf.size, dtype)
    _read_into(name, leaf, {}, 0, out)
    return out.reshape(leaf.shape)

  return tree.Stored(fetch, leaf.shape, dtype, read_into)


def counts(name: str, leaf: Ternary) -> np.ndarray:
  """Returns how many entries are 0, c and -c, ``[3]``."""
  positive = negative = 0
  part = np.empty(min(leaf.size, rice.CHUNK), np.int8)
  one = dataclasses.replace(leaf, value=np.int8(1), dtype='int8')
  for start in range(0, leaf.size, rice.CHUNK):
    out = part[: leaf.size - start]
    _read_into(name, one, {}, start, out)
    positive += int(np.count_nonzero(out > 0))
    negative += int(np.count_nonzero(out < 0))
  return np.asarray([leaf.size - positive - negative, positive, negative])


def _read_into(
  name: str,
  leaf: Ternary,
  held: dict[int, np.ndarray],
  start: int,
  out: np.ndarray,
) -> None:
  """Decodes the entries from ``start`` on.

  A reader in windows that end within a chunk asks for the rest of it next, so
  the last chunk that was decoded in part is held.
  """
  index = np.asarray(tree.read(leaf.index))
  offsets = rice.starts(index)
  if len(index) != -(-leaf.size // rice.CHUNK) or (
    offsets[-1] != leaf.data.shape[0]
  ):
    raise _damaged(name, 'its index does not fit')
  value = np.asarray(tree.read(leaf.value)).astype(out.dtype)
  done = 0
  while done < len(out):
    i, skip = divmod(start + done, rice.CHUNK)
    length = min(rice.CHUNK, leaf.size - i * rice.CHUNK)
    count = min(length - skip, len(out) - done)
    part = out[done : done + count]
    codes = functools.partial(
      _bytes, leaf.data, int(offsets[i]), int(offsets[i + 1])
    )
    try:
      if count == length:
        rice.decode(codes(), index[i], value, part)
      else:
        if i not in held:
          held.clear()
          chunk = np.empty(length, out.dtype)
          rice.decode(codes(), index[i], value, chunk)
          held[i] = chunk
        part[:] = held[i][skip : skip + count]
        if skip + count == length:
          held.clear()
    except ValueError as error:
      raise _damaged(name, str(error)) from None
    done += count


def _bytes(data: Any, start: int, stop: int) -> np.ndarray:
  """Returns bytes of an array in memory or on demand."""
  if isinstance(data, tree.Stored) and data.read_into is not None:
    out = np.empty(stop - start, np.uint8)
    data.read_into(start, out)
    return out
  return np.asarray(tree.read(data))[start:stop]


def _damaged(name: str, what: str) -> ValueError:
  return ValueError(f"decode: leaf '{name}' is damaged, copy its file: {what}")


def encode(x: types.Array, value: Any, dtype: np.dtype) -> Ternary:
  """Returns the signs of an array, which the value multiplies."""
  flat = np.asarray(x).reshape(-1)
  chunks = (
    np.sign(flat[at : at + rice.CHUNK]).astype(np.int8)
    for at in range(0, flat.size, rice.CHUNK)
  )
  coded = rice.encode(chunks)
  return Ternary(*coded, value, tuple(x.shape), dtype.name)
