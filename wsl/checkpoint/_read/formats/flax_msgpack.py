"""Trees that Flax has written as msgpack, array by array.

An array is an extension value: its shape, the name of its dtype, and its bytes.
Only the bytes between arrays are parsed. An array above 1 GiB is written in
chunks, and is read from them.
"""

import functools
import math
import mmap
import os
import pathlib
import struct
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from wsl import tree, types
from wsl.checkpoint._read import file_bytes, messages, sizes, stored
from wsl.checkpoint._read.formats import values

_CHUNKED = '__msgpack_chunked_array__'
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
# Codes with a number of a fixed size; the size of a string, map or array too.
_NUMBERS = {0xCA: 'f', 0xCB: 'd', 0xCC: 'B', 0xCD: 'H', 0xCE: 'I', 0xCF: 'Q'}
_NUMBERS |= {0xD0: 'b', 0xD1: 'h', 0xD2: 'i', 0xD3: 'q'}
_STRINGS = {0xD9: 'B', 0xDA: 'H', 0xDB: 'I'}
_BYTES = {0xC4: 'B', 0xC5: 'H', 0xC6: 'I'}
_LISTS = {0xDC: 'H', 0xDD: 'I'}
_MAPS = {0xDE: 'H', 0xDF: 'I'}
_EXTENSIONS = {0xC7: 'B', 0xC8: 'H', 0xC9: 'I'}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class Array(NamedTuple):
  """An array: its dtype and shape, and the start of each of its chunks."""

  dtype: np.dtype
  shape: tuple[int, ...]
  chunks: tuple[tuple[int, int], ...]


class _Bytes(NamedTuple):
  """A string of bytes in the file."""

  start: int
  nbytes: int


def open_file(
  path: pathlib.Path, options: stored.Options, item: str | None
) -> types.Tree:
  """Returns the tree of a file, arrays as leaves on demand.

  Args:
    path: the file.
    options: what the leaves share.
    item: the key of the tree in the file; ``None`` takes all.

  Raises:
    FileNotFoundError: if there is no such item.
    ValueError: if the file is damaged, or holds something else than arrays.
  """
  with open(path, 'rb') as opened:
    stamp = file_bytes.stamp_of(os.fstat(opened.fileno()))
    with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
      try:
        content = _Parser(data).document()
      except (ValueError, struct.error, IndexError, TypeError, KeyError) as e:
        what = messages.shorten(e)
        raise messages.damaged(path, what or 'it is truncated') from None
      except RecursionError:
        raise messages.damaged(path, 'it is nested too deeply') from None
  file = file_bytes.FileBytes(path, stamp)
  return values.convert(
    path,
    values.choose(path, content, item),
    functools.partial(_leaf, file, options),
    arrays=Array,
    budget=stamp[0] + 1,
  )


def _leaf(
  file: file_bytes.FileBytes, options: stored.Options, name: str, array: Array
) -> tree.Stored:
  """Returns an array as a leaf on demand."""
  start = array.chunks[0][0] if array.chunks else 0
  fetch = stored.Fetch(name, array.dtype, array.shape, file, start, options)
  if len(array.chunks) != 1:
    fetch = fetch._replace(whole=functools.partial(_join, file, name, array))
  return stored.leaf(fetch)


def _join(file: file_bytes.FileBytes, name: str, array: Array) -> np.ndarray:
  """Reads an array from its chunks."""
  nbytes = sum(nbytes for _, nbytes in array.chunks)
  buffer, end = file_bytes.aligned(nbytes), 0
  for start, nbytes in array.chunks:
    file.read_into(buffer[end : end + nbytes], start, name=name)
    end += nbytes
  return buffer.view(array.dtype).reshape(array.shape)


class _Parser:
  """Parses msgpack in a mapped file, without touching the bytes of arrays."""

  def __init__(self, data: mmap.mmap):
    self.data = data
    self.place = 0
    self.values = 0

  def document(self) -> Any:
    """Returns the only value of the file."""
    value = self.value()
    if self.place != len(self.data):
      raise ValueError(f'{len(self.data) - self.place} bytes follow its end')
    return value

  def value(self) -> Any:
    """Returns the next value."""
    self.values += 1
    sizes.check_count(self.values)
    code = self.number('B')
    if code < 0x80:
      return code
    if code >= 0xE0:
      return code - 0x100
    if code < 0x90:
      return self.mapping(code & 0x0F)
    if code < 0xA0:
      return [self.value() for _ in range(code & 0x0F)]
    if code < 0xC0:
      return self.string(code & 0x1F)
    if code in _CONSTANTS:
      return _CONSTANTS[code]
    if code in _NUMBERS:
      return self.number(_NUMBERS[code])
    if code in _STRINGS:
      return self.string(self.number(_STRINGS[code]))
    if code in _BYTES:
      return self.skip(self.number(_BYTES[code]))
    if code in _LISTS:
      return [self.value() for _ in range(self.number(_LISTS[code]))]
    if code in _MAPS:
      return self.mapping(self.number(_MAPS[code]))
    if code in _EXTENSIONS:
      return self.extension(self.number(_EXTENSIONS[code]))
    if 0xD4 <= code <= 0xD8:
      return self.extension(1 << (code - 0xD4))
    raise ValueError(f'byte {self.place - 1} is no msgpack')

  def number(self, code: str) -> Any:
    """Returns the next number, big-endian."""
    (value,) = struct.unpack_from(f'>{code}', self.data, self.place)
    self.place += struct.calcsize(f'>{code}')
    return value

  def skip(self, nbytes: int) -> _Bytes:
    """Returns the place of the next bytes, and skips them."""
    found = _Bytes(self.place, nbytes)
    self.place += nbytes
    if self.place > len(self.data):
      raise ValueError('it is truncated')
    return found

  def string(self, nbytes: int) -> str:
    """Returns the next string."""
    start, _ = self.skip(nbytes)
    return self.data[start : start + nbytes].decode('utf-8')

  def mapping(self, count: int) -> Any:
    """Returns the next dict; one that describes a chunked array is joined."""
    found = {}
    for _ in range(count):
      key = self.value()
      found[key] = self.value()
    return _chunked(found) if _CHUNKED in found else found

  def extension(self, nbytes: int) -> Any:
    """Returns the next array or complex number."""
    kind, stop = self.number('b'), self.place + nbytes + 1
    stop = self.place + nbytes
    content = self.value()
    if self.place != stop:
      raise ValueError(f'the array before byte {stop} has another size')
    if kind == _COMPLEX:
      return complex(*content)
    if kind not in (_ARRAY, _SCALAR):
      raise ValueError(f'it has an extension of type {kind}')
    shape, dtype, place = content
    return _array(shape, dtype, place)


def _array(shape: Any, name: Any, place: Any) -> Array:
  """Returns an array, whose bytes must fit its shape and dtype."""
  dtype = _dtype(name)
  axes = _axes(shape, dtype)
  needed = math.prod(axes) * dtype.itemsize
  if not isinstance(place, _Bytes) or place.nbytes != needed:
    raise ValueError(f'an array {dtype}{list(axes)} has another size')
  return Array(dtype, axes, ((place.start, place.nbytes),))


def _axes(shape: Any, dtype: np.dtype) -> tuple[int, ...]:
  """Returns the shape of an array, checked."""
  axes = tuple(shape)
  if not all(type(n) is int and n >= 0 for n in axes):
    raise ValueError(f'an array has shape {axes}')
  sizes.check_shape(axes, dtype.itemsize)
  return axes


def _chunked(found: dict[Any, Any]) -> Array:
  """Joins the description of an array that is written in chunks."""
  ordered = lambda node: [node[f'{i}'] for i in range(len(node))]
  shape, chunks = ordered(found['shape']), ordered(found['chunks'])
  dtype = chunks[0].dtype if chunks else np.dtype(np.float32)
  places = tuple(place for chunk in chunks for place in chunk.chunks)
  if any(chunk.dtype != dtype for chunk in chunks):
    raise ValueError('the chunks of an array have several dtypes')
  axes = _axes(shape, dtype)
  needed = math.prod(axes) * dtype.itemsize
  if sum(nbytes for _, nbytes in places) != needed:
    raise ValueError(f'the chunks of an array {list(shape)} lack bytes')
  return Array(dtype, axes, places)


def _dtype(name: Any) -> np.dtype:
  """Returns the dtype of a name: NumPy's numbers, or one of ``ml_dtypes``."""
  if isinstance(name, _Bytes) or not isinstance(name, str):
    raise ValueError('the dtype of an array is no string')
  extended = getattr(ml_dtypes, name, None)
  dtype = np.dtype(name if extended is None else extended)
  known = dtype.kind in 'biufc' or dtype.type is extended
  if not known:
    raise ValueError(f'an array has dtype {name}')
  return dtype
