"""GGUF files of unquantised tensors, tensor by tensor.

A file is a header, key-value pairs, descriptions of the tensors, and the
tensors at multiples of the alignment. Sizes are listed from the innermost axis
outwards. Names, and the order of rows in the attention's projections, are
llama.cpp's, not those of Hugging Face.
"""

import math
import mmap
import os
import pathlib
import struct
from typing import Any

import ml_dtypes
import numpy as np

from wsl import tree
from wsl.checkpoint._read import file_bytes, messages, sizes, stored

_DTYPES = {
  0: np.dtype('<f4'),
  1: np.dtype('<f2'),
  24: np.dtype('<i1'),
  25: np.dtype('<i2'),
  26: np.dtype('<i4'),
  27: np.dtype('<i8'),
  28: np.dtype('<f8'),
  30: np.dtype(ml_dtypes.bfloat16),
}
_QUANTISED = (
  {2: 'Q4_0', 3: 'Q4_1', 6: 'Q5_0', 7: 'Q5_1', 8: 'Q8_0', 9: 'Q8_1'}
  | {10: 'Q2_K', 11: 'Q3_K', 12: 'Q4_K', 13: 'Q5_K', 14: 'Q6_K', 15: 'Q8_K'}
  | {16: 'IQ2_XXS', 17: 'IQ2_XS', 18: 'IQ3_XXS', 19: 'IQ1_S', 20: 'IQ4_NL'}
  | {21: 'IQ3_S', 22: 'IQ2_S', 23: 'IQ4_XS', 29: 'IQ1_M', 34: 'TQ1_0'}
  | {35: 'TQ2_0', 39: 'MXFP4'}
)
# The number types of values, by struct's codes; 8 is a string, 9 an array.
_NUMBERS = {0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?'}
_NUMBERS |= {10: 'Q', 11: 'q', 12: 'd'}
_VERSIONS = (2, 3)
_ALIGNMENT = 'general.alignment'
_MOST_AXES = 8


class _Cursor:
  """Reads values from a mapped file, one after the other."""

  def __init__(self, data: mmap.mmap):
    self.data = data
    self.place = 0
    self.values = 0

  def take(self, nbytes: int) -> bytes:
    """Returns the next bytes."""
    if nbytes > len(self.data) - self.place:
      raise ValueError('it is truncated')
    self.place += nbytes
    return self.data[self.place - nbytes : self.place]

  def number(self, code: str) -> Any:
    """Returns the next number, little-endian."""
    size = struct.calcsize(f'<{code}')
    return struct.unpack(f'<{code}', self.take(size))[0]

  def string(self) -> str:
    """Returns the next string."""
    return self.take(self.number('Q')).decode('utf-8')

  def value(self, kind: int) -> Any:
    """Returns the next value; arrays are skipped."""
    self.values += 1
    sizes.check_count(self.values)
    if kind in _NUMBERS:
      return self.number(_NUMBERS[kind])
    if kind == 8:
      return self.string()
    if kind != 9:
      raise ValueError(f'it has a value of type {kind}')
    inner, count = self.number('I'), self.number('Q')
    if inner in _NUMBERS:
      self.take(count * struct.calcsize(f'<{_NUMBERS[inner]}'))
      return None
    for _ in range(count):
      self.value(inner)
    return None


def open_file(
  path: pathlib.Path, options: stored.Options
) -> tuple[dict[str, tree.Stored], dict[str, str]]:
  """Returns the tensors of a file as leaves on demand, and its metadata.

  Of the metadata only strings are kept.

  Raises:
    ValueError: if the file is damaged, or holds a quantised tensor.
  """
  with open(path, 'rb') as file:
    stamp = file_bytes.stamp_of(os.fstat(file.fileno()))
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
      version = int.from_bytes(data[4:8], 'little')
      if version not in _VERSIONS:
        raise ValueError(
          f'load: {path} is a GGUF file of version {version}, versions 2 and 3 '
          'are read: convert it by a newer llama.cpp'
        )
      try:
        notes, tensors, start = _parse(_Cursor(data))
      except RecursionError:
        raise messages.damaged(path, 'it is nested too deeply') from None
      except (ValueError, OverflowError) as error:
        what = messages.shorten(error)
        raise messages.damaged(path, what) from None
  bytes_of = file_bytes.FileBytes(path, stamp)
  leaves = {}
  for name, (shape, kind, offset) in tensors.items():
    _check_type(path, name, kind)
    dtype, place = _DTYPES[kind], start + offset
    if place + math.prod(shape) * dtype.itemsize > stamp[0]:
      raise messages.damaged(
        path, f'it is truncated: leaf {messages.quote(name)} ends beyond it'
      )
    fetch = stored.Fetch(name, dtype, shape, bytes_of, place, options)
    leaves[name] = stored.leaf(fetch)
  return leaves, notes


def _parse(
  cursor: _Cursor,
) -> tuple[dict[str, str], dict[str, tuple], int]:
  """Returns metadata, (shape, type, offset) by name, and the tensors' start."""
  cursor.take(8)  # the magic bytes and the version
  count, pairs = cursor.number('Q'), cursor.number('Q')
  notes, alignment = {}, 32
  for _ in range(pairs):
    key = cursor.string()
    value = cursor.value(cursor.number('I'))
    if isinstance(value, str):
      notes[key] = value
    elif key == _ALIGNMENT:
      alignment = value
  if not isinstance(alignment, int) or alignment <= 0:
    raise ValueError(f'its alignment is {alignment}')
  tensors = {}
  for _ in range(count):
    name, axes = cursor.string(), cursor.number('I')
    if axes > _MOST_AXES or name in tensors:
      raise ValueError(f'its tensor {messages.quote(name)} is malformed')
    shape = tuple(cursor.number('Q') for _ in range(axes))[::-1]
    sizes.check_shape(shape, 8)
    tensors[name] = (shape, cursor.number('I'), cursor.number('Q'))
  return notes, tensors, -(-cursor.place // alignment) * alignment


def _check_type(path: pathlib.Path, name: str, kind: int) -> None:
  """Raises for a tensor of a quantised or unknown type."""
  if kind not in _DTYPES:
    what = _QUANTISED.get(kind, f'of type {kind}')
    raise ValueError(
      f'load: leaf {messages.quote(name)} of {path} is {what}, a quantised '
      'GGUF type, which is not read: take the original weights, or dequantise '
      'it to F32'
    )
