"""Recognises the format of a file by its first bytes."""

import pathlib
import re
from typing import NamedTuple
import zipfile

from wsl.checkpoint._read import archive as archive_lib

# The longest signature read here: a tar header holds its mark at byte 257.
_READ = 512
# The limit of the published package: a larger length is a damaged file.
LONGEST_HEADER = 100_000_000
_DOWNLOAD = 'download the file itself'
_TORCH = (
  'only those of PyTorch are read, without code: load it with the program that '
  'wrote it and save its arrays by checkpoint.save'
)
_UNPACK = 'unpack it and load the file inside'
_SAVE = 'and save its arrays by checkpoint.save'


class Format(NamedTuple):
  """A file format and the way to convert it to safetensors."""

  name: str
  remedy: str


JSON = Format('JSON', 'give the weights, or an index NAME.index.json')
# Formats with a reader; the remedy is for a file that is only named like one.
MSGPACK = Format('msgpack (Flax)', 'copy it again')
TORCH = Format('a PyTorch file (zip)', 'copy it again')
NPZ = Format('an archive of NumPy arrays (NPZ)', 'copy it again')
GGUF = Format('a GGUF file', 'copy it again')
PICKLE = Format('a pickle', _TORCH)
_ONNX = Format('an ONNX file', f'read it with onnx.numpy_helper {_SAVE}')
# The bytes at the start of a file. The mark of a pickle is its protocol.
_SIGNATURES = (
  (b'version https://git-lfs', Format('a Git LFS pointer', 'run git lfs pull')),
  (b'/annex/objects/', Format('a git-annex pointer', 'run git annex get')),
  (
    b'\x93NUMPY',
    Format('a NumPy array (NPY)', 'save it with checkpoint.save(path, array)'),
  ),
  (b'GGUF', GGUF),
  (
    b'\x89HDF\r\n\x1a\n',
    Format('an HDF5 file', f'read it with h5py {_SAVE}'),
  ),
  (b'\x1f\x8b', Format('a gzip archive', _UNPACK)),
  (b'BZh', Format('a bzip2 archive', _UNPACK)),
  (b'\xfd7zXZ\x00', Format('an xz archive', _UNPACK)),
  (b'\x28\xb5\x2f\xfd', Format('a zstd archive', _UNPACK)),
  (b'PAR1', Format('a Parquet file', 'it holds a table: give the weights')),
  (b'ARROW1', Format('an Arrow file', 'it holds a table: give the weights')),
  (b'\xff\xfe', Format('a text in UTF-16', _DOWNLOAD)),
  # The first field is the version of the format, the second is text.
  *((bytes([8, version, 0x12]), _ONNX) for version in range(1, 16)),
  *((bytes([0x80, protocol]), PICKLE) for protocol in (2, 3, 4, 5)),
)


def recognise(path: pathlib.Path) -> Format | None:
  """Returns the format of a file that is not safetensors.

  Args:
    path: a file without a safetensors header.

  Returns:
    The format, or ``None`` if it is unknown, or may be a truncated safetensors
    file.
  """
  with open(path, 'rb') as file:
    first = file.read(_READ)
  if not first:
    return Format('empty', 'copy it again')
  # A truncated safetensors file starts with the length of its header, whose low
  # bytes may be any signature, and the header's brace.
  if first[4:8] == bytes(4) and first[8:9] in (b'', b'{'):
    return None
  for signature, found in _SIGNATURES:
    if first.startswith(signature):
      return found
  if first.startswith(b'PK\x03\x04'):
    return _zip(path)
  if first[257:262] == b'ustar':
    return Format('a tar archive', _UNPACK)
  if _is_msgpack(first):
    return MSGPACK
  return _text(first)


def readable(path: pathlib.Path) -> Format | None:
  """Returns the format of a file that has a reader of its own.

  ``None`` stands for safetensors and for everything else: a length of a header
  that is possible comes before any signature.
  """
  with open(path, 'rb') as file:
    first = file.read(8)
  if int.from_bytes(first, 'little') <= LONGEST_HEADER:
    return None
  found = recognise(path)
  return found if found in (MSGPACK, TORCH, NPZ, GGUF, PICKLE) else None


def error(path: pathlib.Path) -> ValueError | None:
  """Returns the error for a file of another format, if it is recognised."""
  found = recognise(path)
  if found is None:
    return None
  return ValueError(
    f'load: {path} is {found.name}, not safetensors: {found.remedy}'
  )


def _zip(path: pathlib.Path) -> Format:
  """Distinguishes the zip archives of PyTorch, NumPy and Keras."""
  try:
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
  except archive_lib.ERRORS:
    return Format('a truncated zip archive', 'copy it again')
  if any(name.endswith('data.pkl') for name in names):
    return TORCH
  if names and all(name.endswith('.npy') for name in names):
    return NPZ
  if any(name.endswith('.weights.h5') for name in names):
    return Format(
      'a Keras file',
      'load it with keras and save its weights by checkpoint.save',
    )
  return Format('a zip archive', _UNPACK)


def _is_msgpack(first: bytes) -> bool:
  """Returns True for a msgpack map whose first key is a string.

  A map of up to 15 items starts with 0x8n, a larger one with 0xde or 0xdf and
  its size; a string with 0xan, 0xbn or 0xd9 to 0xdb.
  """
  skip = {0xDE: 3, 0xDF: 5}.get(first[0], 1)
  is_map = skip > 1 or 0x81 <= first[0] <= 0x8F
  key = first[skip] if len(first) > skip else 0
  return is_map and (0xA0 <= key <= 0xBF or 0xD9 <= key <= 0xDB)


def _text(first: bytes) -> Format | None:
  """Recognises an HTML page, JSON, or the message of a failed download."""
  start = first.removeprefix(b'\xef\xbb\xbf').lstrip()
  if re.match(rb'<(!doctype|html|head|body|\?xml)', start, re.IGNORECASE):
    return Format('an HTML or XML page', _DOWNLOAD)
  if start.startswith((b'{', b'[')):
    return JSON
  try:
    text = first.decode('ascii')
  except UnicodeDecodeError:
    return None
  if not all(c.isprintable() or c.isspace() for c in text):
    return None
  return Format(f'a text ({" ".join(text.split())[:40]!r})', _DOWNLOAD)
