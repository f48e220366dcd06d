"""Tensors of a safetensors file: dtype, shape, bytes; as leaves on demand."""

from collections.abc import Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from wsl import tree
from wsl.checkpoint import _digests, _format
from wsl.checkpoint._read import file_bytes, messages, recorded, stored

_MAX_INTEGER = 2**64 - 1
# Packed formats of less than a byte; no order of the bits is defined.
_PACKED = {
  'F4': (np.dtype(ml_dtypes.float4_e2m1fn), 4),
  'F6_E2M3': (np.dtype(ml_dtypes.float6_e2m3fn), 6),
  'F6_E3M2': (np.dtype(ml_dtypes.float6_e3m2fn), 6),
}
_UNREAD = {dtype for dtype, _ in _PACKED.values()}
# The dtype and the bits of an element of each code.
BITS = {
  code: (dtype, 8 * dtype.itemsize) for code, dtype in _format.DTYPES.items()
} | _PACKED


class Entry(NamedTuple):
  """One tensor of a file: ``start`` counts from the file's first byte."""

  dtype: np.dtype
  shape: tuple[int, ...]
  start: int
  nbytes: int


class Header(NamedTuple):
  """The tensors and metadata of a file, with its size and time stamp."""

  entries: dict[str, Entry]
  metadata: dict[str, str]
  stamp: file_bytes.Stamp


def leaves(
  path: pathlib.Path, header: Header, options: stored.Options
) -> dict[str, tree.Stored]:
  """Returns the tensors of a file as leaves on demand."""
  file = file_bytes.FileBytes(path, header.stamp, _hashes(path, header))
  found = {}
  # Inlined: a call for each of 70,000 leaves costs a tenth of the time to open.
  make: Any = stored.Fetch
  stored_leaf = tree.Stored
  for name, (dtype, shape, start, _) in header.entries.items():
    fetch = make(name, dtype, shape, file, start, options)
    if dtype in _UNREAD:
      refuse = functools.partial(_refuse_packed, path, name, dtype)
      found[name] = stored.leaf(fetch._replace(whole=refuse))
    else:
      found[name] = stored_leaf(fetch, shape, dtype, fetch.read_into)
  return found


def _hashes(path: pathlib.Path, header: Header) -> recorded.Hashes | None:
  """Returns the hashes of tensors that a file records, if it does."""
  digests = _digests.decode(path, header.metadata)
  if not digests:
    return None
  found = []
  for name, entry in header.entries.items():
    digest = digests.get(name, '')
    found.append(recorded.Recorded(entry.start, entry.nbytes, name, digest))
  return recorded.Hashes(found)


def size_in_bits(shape: Sequence[int], bits: int) -> int | None:
  """Returns the size of a tensor.

  None if the product exceeds 64 bits, also before it reaches a zero: such a
  shape is refused by the published package, and may be long.
  """
  size = 1
  for n in shape:
    size *= n
    if size > _MAX_INTEGER:
      return None
  return size * bits if size * bits <= _MAX_INTEGER else None


def _refuse_packed(path: pathlib.Path, name: str, dtype: np.dtype) -> Any:
  """Raises for a packed leaf, when it is read."""
  raise ValueError(
    f'load: leaf {messages.quote(name)} of {path} is packed {dtype}, which is '
    'not read: take the original weights, or unpack it'
  )
