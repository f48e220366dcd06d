"""The safetensors format: a JSON header, then the bytes of every tensor.

A file is 8 bytes (the header's length, little-endian), the header, and the
payload. The header maps each name to a dtype, a shape and two offsets into the
payload, which has neither holes nor overlaps; ``__metadata__`` maps strings to
strings. The published package is not used because it needs every tensor in
memory before it writes the first byte, and cannot read float8 into numpy.
"""

import json
import os
import pathlib
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from wsl.checkpoint import _foreign

DTYPES = {
  'BOOL': np.dtype(np.bool_),
  'U8': np.dtype('<u1'),
  'I8': np.dtype('<i1'),
  'U16': np.dtype('<u2'),
  'I16': np.dtype('<i2'),
  'U32': np.dtype('<u4'),
  'I32': np.dtype('<i4'),
  'U64': np.dtype('<u8'),
  'I64': np.dtype('<i8'),
  'F8_E4M3': np.dtype(ml_dtypes.float8_e4m3fn),
  'F8_E5M2': np.dtype(ml_dtypes.float8_e5m2),
  'F8_E4M3FNUZ': np.dtype(ml_dtypes.float8_e4m3fnuz),
  'F8_E5M2FNUZ': np.dtype(ml_dtypes.float8_e5m2fnuz),
  'F8_E8M0': np.dtype(ml_dtypes.float8_e8m0fnu),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'F16': np.dtype('<f2'),
  'F32': np.dtype('<f4'),
  'F64': np.dtype('<f8'),
  'C64': np.dtype('<c8'),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
# The name in the header that is not a leaf.
_METADATA = '__metadata__'
# The limit of the published package: a larger length is a damaged file.
_MAX_HEADER = 100_000_000
# The header is padded so that the payload starts at a multiple of 64 bytes.
_ALIGN = 64


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
  stamp: tuple[int, int]


def code(name: str, dtype: Any) -> str:
  """Returns the format's code of a leaf's dtype.

  Raises:
    ValueError: if the format has neither the dtype nor the name.
  """
  if name == _METADATA:
    raise ValueError(
      f"save: a leaf is named '{name}', which safetensors reserves: rename it"
    )
  if dtype not in _CODES:
    hint = 'save its jax.random.key_data' if 'key' in str(dtype) else 'cast it'
    if getattr(dtype, 'kind', '') in 'US':
      hint = 'give strings as metadata='
    raise ValueError(
      f"save: leaf '{name}' has dtype {dtype}, which safetensors does not "
      f'have: {hint}'
    )
  return _CODES[dtype]


def encode(
  specs: dict[str, tuple[np.dtype, tuple[int, ...]]], metadata: dict[str, str]
) -> bytes:
  """Returns length and header of a file with ``specs`` in this order."""
  header: dict[str, Any] = {_METADATA: metadata} if metadata else {}
  end = 0
  for name, (dtype, shape) in specs.items():
    start, end = end, end + nbytes(dtype, shape)
    header[name] = {
      'dtype': code(name, dtype),
      'shape': list(shape),
      'data_offsets': [start, end],
    }
  text = json.dumps(header, ensure_ascii=False, separators=(',', ':')).encode()
  text += b' ' * (-(8 + len(text)) % _ALIGN)
  return len(text).to_bytes(8, 'little') + text


def nbytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
  """Returns the size of a tensor."""
  return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def read_header(path: pathlib.Path) -> Header:
  """Reads and checks a file's header, without reading the payload.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file is damaged, naming what is wrong with it, or is of
      another format.
  """
  try:
    with open(path, 'rb', buffering=0) as file:
      stamp = stamp_of(file.fileno())
      first = file.read(8)
      length = int.from_bytes(first, 'little')
      text = b''
      if len(first) == 8 and length <= min(stamp[0] - 8, _MAX_HEADER):
        text = file.read(length)
  except FileNotFoundError:
    remedy = 'check the path'
    if path.is_symlink():
      remedy = f'it is a link to {os.readlink(path)}, fetch that file'
    raise FileNotFoundError(
      f'load: there is no file {path}: {remedy}'
    ) from None
  if len(text) < length or len(first) < 8:
    raise _foreign.error(path) or damaged(
      path, f'its header should take {length} bytes, the file has {stamp[0]}'
    )
  try:
    header, twice = parse_json(text)
    found = header.pop(_METADATA, None) or {}
    metadata = {k: v for k, v in found.items() if isinstance(v, str)}
  except (AttributeError, TypeError, ValueError, RecursionError):
    raise _foreign.error(path) or damaged(
      path, 'its header is not a JSON object'
    ) from None
  if twice is not None:
    raise damaged(path, f"its header has the name '{twice}' twice")
  entries = {
    name: _entry(path, name, value, 8 + length)
    for name, value in header.items()
  }
  _check_cover(path, entries, 8 + length, stamp[0])
  return Header(entries, metadata, stamp)


def parse_json(text: str | bytes) -> tuple[Any, str | None]:
  """Parses JSON; returns a key that an object has twice, if any, as well."""
  twice: list[str] = []

  def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
      keys = [key for key, _ in pairs]
      twice.append(next(key for key in keys if keys.count(key) > 1))
    return found

  value = json.loads(text, object_pairs_hook=collect)
  return value, twice[-1] if twice else None


def _entry(path: pathlib.Path, name: str, value: Any, payload: int) -> Entry:
  """Parses and checks the header's entry of one tensor."""
  try:
    dtype_code, shape = value['dtype'], tuple(value['shape'])
    start, stop = value['data_offsets']
    sound = isinstance(dtype_code, str)
    sound &= all(type(n) is int and n >= 0 for n in (*shape, start, stop))
  except (KeyError, TypeError, ValueError):
    sound = False
  if not sound:
    raise damaged(path, f"the header's entry of leaf '{name}' is malformed")
  if dtype_code not in DTYPES:
    raise ValueError(
      f"load: leaf '{name}' of {path} has dtype {dtype_code!r}, which is none "
      f'of {", ".join(DTYPES)}: convert the file'
    )
  dtype = DTYPES[dtype_code]
  if stop - start != nbytes(dtype, shape):
    raise damaged(
      path,
      f"leaf '{name}' has {stop - start} bytes, {dtype_code}{list(shape)} "
      f'needs {nbytes(dtype, shape)}',
    )
  return Entry(dtype, shape, payload + start, stop - start)


def _check_cover(
  path: pathlib.Path, entries: dict[str, Entry], payload: int, size: int
) -> None:
  """Checks that the tensors cover the payload without holes or overlaps."""
  end = payload
  for name, entry in sorted(
    entries.items(), key=lambda item: (item[1].start, item[1].nbytes)
  ):
    if entry.start != end:
      what = 'overlaps the one before' if entry.start < end else 'follows a gap'
      raise damaged(path, f"leaf '{name}' {what}")
    end += entry.nbytes
    if end > size:
      raise damaged(
        path, f"it is truncated: leaf '{name}' ends at byte {end} of {size}"
      )
  if end < size:
    raise damaged(path, f'{size - end} bytes at its end belong to no leaf')


def damaged(path: pathlib.Path, what: str) -> ValueError:
  """Returns the error for a damaged file."""
  return ValueError(f'load: {path} is damaged, copy it again: {what}')


def stamp_of(descriptor: int) -> tuple[int, int]:
  """Returns size and time stamp of an open file."""
  status = os.fstat(descriptor)
  return status.st_size, status.st_mtime_ns
