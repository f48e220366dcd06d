"""Archives of NumPy arrays (NPZ), array by array.

Booleans, integers, float16 to float64, complex64 and complex128 of any byte
order. NPZ does not record the dtypes of ``ml_dtypes``: bfloat16 is written as
raw bytes, and is refused, as are strings, structures and Python objects, which
may run code.
"""

import ast
import functools
import math
import pathlib
import re
import struct
from typing import Any, NamedTuple

import numpy as np

from wsl import tree
from wsl.checkpoint._read import archive, file_bytes, messages, sizes, stored

_HEADER = 10_000 + 64  # the longest header that numpy reads
_MAGIC = b'\x93NUMPY'
_LENGTHS = {1: '<H', 2: '<I', 3: '<I'}
_PLAIN = re.compile(r'[<>|=][biufcSUVO][0-9]*')
_ERRORS = (
  ValueError,
  TypeError,
  KeyError,
  IndexError,
  SyntaxError,
  struct.error,
)
_KINDS = 'biufc'
_WIDEST = {'f': 8, 'c': 16}


class _Array(NamedTuple):
  """The header of one array: ``start`` counts from the member's start."""

  dtype: np.dtype
  shape: tuple[int, ...]
  fortran: bool
  start: int


def open_file(
  path: pathlib.Path, options: stored.Options
) -> dict[str, tree.Stored]:
  """Returns the arrays of an archive as leaves on demand.

  Raises:
    ValueError: if the file is damaged, or an array has another dtype.
  """
  found, file = archive.members(path)
  return {
    member.removesuffix('.npy'): _leaf(file, member, place, options)
    for member, place in found.items()
  }


def _leaf(
  file: file_bytes.FileBytes,
  member: str,
  place: archive.Member,
  options: stored.Options,
) -> tree.Stored:
  """Reads the header of one array."""
  path, name = file.path, member.removesuffix('.npy')
  first = _first(file, member, place)
  array = _parse(path, name, first)
  native = array.dtype.newbyteorder('=')
  nbytes = math.prod(array.shape) * native.itemsize
  if nbytes != place.nbytes - array.start:
    raise messages.damaged(
      path,
      f'leaf {messages.quote(name)} has {place.nbytes - array.start} bytes, '
      f'{native}{list(array.shape)} needs {nbytes}',
    )
  start = place.start + array.start
  fetch = stored.Fetch(name, native, array.shape, file, start, options)
  if place.packed or array.fortran or native != array.dtype:
    read = functools.partial(_read, file, member, place, array)
    fetch = fetch._replace(whole=read)
  return stored.leaf(fetch)


def _first(
  file: file_bytes.FileBytes, member: str, place: archive.Member
) -> bytes:
  """Returns the first bytes of a member, with the header of its array."""
  size = min(_HEADER, place.nbytes)
  if place.packed:
    return archive.unpack(file.path, member, size)
  out = np.empty(size, np.uint8)
  file.read_into(out, place.start, name=member)
  return out.tobytes()


def _parse(path: pathlib.Path, name: str, first: bytes) -> _Array:
  """Parses the header of an array, and checks its dtype."""
  try:
    array = _header(first)
  except (*_ERRORS, RecursionError, MemoryError):
    raise messages.damaged(
      path, f'the header of array {messages.quote(name)} is malformed'
    ) from None
  dtype = array.dtype
  if dtype.kind not in _KINDS or dtype.itemsize > _WIDEST.get(dtype.kind, 8):
    hint = 'view it as bfloat16' if dtype.str == '|V2' else 'leave it out'
    raise ValueError(
      f'load: leaf {messages.quote(name)} of {path} has dtype '
      f'{messages.quote(dtype.str)}, which is no number: {hint} and save it as '
      'safetensors'
    )
  return array


def _header(first: bytes) -> _Array:
  """Parses magic, version, length and the dict of a header.

  ``numpy.lib.format`` repairs headers of Python 2 by its tokenizer, which
  raises errors of many kinds.
  """
  if first[:6] != _MAGIC or first[6] not in _LENGTHS:
    raise ValueError('no array')
  code = _LENGTHS[first[6]]
  start = 8 + struct.calcsize(code)
  (length,) = struct.unpack(code, first[8:start])
  text = first[start : start + length]
  if len(text) < length:
    raise ValueError('too long')
  found = ast.literal_eval(text.decode('latin-1').strip())
  shape, fortran, dtype = found['shape'], found['fortran_order'], found['descr']
  if type(shape) is not tuple or type(fortran) is not bool or len(found) != 3:
    raise TypeError(shape)
  if not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
    raise ValueError(shape)
  sizes.check_shape(shape, _WIDEST['c'])
  plain = isinstance(dtype, str) and _PLAIN.fullmatch(dtype)
  kind = np.dtype(dtype if plain else object)
  return _Array(kind, shape, fortran, start + length)


def _read(
  file: file_bytes.FileBytes,
  member: str,
  place: archive.Member,
  array: _Array,
) -> np.ndarray:
  """Reads an array that is compressed, transposed or byte-swapped."""
  if place.packed:
    content = archive.unpack(file.path, member, place.nbytes)
    values = np.frombuffer(content, array.dtype, offset=array.start)
  else:
    size = math.prod(array.shape)
    values = np.empty(size, array.dtype)
    file.read_into(values, place.start + array.start, name=member)
  order: Any = 'F' if array.fortran else 'C'
  values = values.reshape(array.shape, order=order)
  return values.astype(array.dtype.newbyteorder('='), copy=False)
