"""The IDX format of MNIST: a magic number, a shape, then the bytes."""

import gzip
import math
import pathlib
import struct
import zlib

import numpy as np

_DTYPES = {
  0x08: 'u1',
  0x09: 'i1',
  0x0B: 'i2',
  0x0C: 'i4',
  0x0D: 'f4',
  0x0E: 'f8',
}


def read(path: pathlib.Path) -> np.ndarray:
  """Reads one IDX file, plain or with the suffix ``.gz``.

  Args:
    path: the file.

  Returns:
    The array, in the machine's byte order.

  Raises:
    ValueError: if the file is damaged or is no IDX file.
  """
  raw = path.read_bytes()
  if path.suffix == '.gz':
    try:
      raw = gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
      raise _damaged(path, f'gzip says: {error}') from None
  if len(raw) < 4 or raw[:2] != b'\0\0' or raw[2] not in _DTYPES:
    raise _damaged(path, f'it begins with {raw[:4].hex() or "nothing"}')
  dtype, rank = np.dtype('>' + _DTYPES[raw[2]]), raw[3]
  start = 4 + 4 * rank
  if len(raw) < start:
    raise _damaged(path, f'it ends within its {rank} sizes')
  shape = struct.unpack(f'>{rank}I', raw[4:start])
  size = math.prod(shape) * dtype.itemsize
  if len(raw) - start != size:
    raise _damaged(
      path, f'its shape {shape} needs {size} bytes, it has {len(raw) - start}'
    )
  values = np.frombuffer(raw, dtype, offset=start).reshape(shape)
  return values.astype(dtype.newbyteorder('='))


def _damaged(path: pathlib.Path, why: str) -> ValueError:
  return ValueError(
    f'{path} is not a whole IDX file ({why}): copy it again, or take it away'
  )
