"""The safetensors format: a JSON header, then the bytes of every tensor.

A file is 8 bytes (the header's length, little-endian), the header, and the
payload. The header maps each name to a dtype, a shape and two offsets into the
payload, which has neither holes nor overlaps; ``__metadata__`` maps strings to
strings. The published package is not used because it needs every tensor in
memory before it writes the first byte, and cannot read float8 into numpy.
"""

import json
import math
from typing import Any

import ml_dtypes
import numpy as np

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
METADATA = '__metadata__'
# The header is padded so that the payload starts at a multiple of 64 bytes.
_ALIGN = 64


def code(name: str, dtype: Any) -> str:
  """Returns the format's code of a leaf's dtype.

  Raises:
    ValueError: if the format has neither the dtype nor the name.
  """
  if name == METADATA:
    raise ValueError(
      f"save: a leaf is named '{name}', which safetensors reserves: rename it"
    )
  if not name.isascii() and any('\ud800' <= c <= '\udfff' for c in name):
    raise ValueError(f'save: the name {name!a} is no Unicode text: rename it')
  if dtype not in _CODES:
    hint = 'save its jax.random.key_data' if 'key' in str(dtype) else 'cast it'
    if getattr(dtype, 'kind', '') in ('U', 'S'):
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
  quote = json.JSONEncoder(ensure_ascii=False, separators=(',', ':')).encode
  # Most leaves have one of a few shapes, whose part of the text is kept.
  kinds: dict[Any, tuple[str, int]] = {}
  parts = [f'{quote(METADATA)}:{quote(metadata)}'] if metadata else []
  end = 0
  for name, kind in specs.items():
    if kind not in kinds:
      dtype, shape = kind
      sizes = ','.join(map(str, shape))
      part = f'{{"dtype":"{code(name, dtype)}","shape":[{sizes}]'
      kinds[kind] = part, nbytes(dtype, shape)
    part, size = kinds[kind]
    start, end = end, end + size
    parts.append(f'{quote(name)}:{part},"data_offsets":[{start},{end}]}}')
  text = f'{{{",".join(parts)}}}'.encode()
  text += b' ' * (-(8 + len(text)) % _ALIGN)
  return len(text).to_bytes(8, 'little') + text


def nbytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
  """Returns the size of a tensor."""
  return math.prod(shape) * dtype.itemsize


def format_bytes(nbytes: float) -> str:
  """Formats a number of bytes in binary units, as ``plan`` prints it.

  Args:
    nbytes: the number, at least 0.

  Returns:
    Text with one decimal, in B, KiB, MiB, GiB or TiB.

  Example:
    >>> from wsl import checkpoint
    >>> checkpoint.format_bytes(512), checkpoint.format_bytes(3 * 2**19)
    ('512 B', '1.5 MiB')
  """
  size, unit = float(nbytes), 'B'
  for unit in ('B', 'KiB', 'MiB', 'GiB', 'TiB'):
    if size < 1024 or unit == 'TiB':
      break
    size /= 1024
  return f'{size:.0f} {unit}' if unit == 'B' else f'{size:.1f} {unit}'
