"""Members of a zip archive: their bytes in the file, without unpacking."""

import lzma
import os
import pathlib
import struct
from typing import NamedTuple
import zipfile
import zlib

from wsl.checkpoint._read import file_bytes, messages, sizes

# A local header: 26 bytes, the lengths of name and extra field, then those two.
_LOCAL = 30
# What zipfile raises for damaged archives.
ERRORS = (
  zipfile.BadZipFile,
  zlib.error,
  lzma.LZMAError,
  OSError,
  EOFError,
  NotImplementedError,
  RuntimeError,
  OverflowError,
  struct.error,
)


class Member(NamedTuple):
  """A member: where its bytes start, how many there are once unpacked.

  Attributes:
    start: the offset of the first byte in the file.
    nbytes: the size of the content.
    packed: whether the content is compressed.
  """

  start: int
  nbytes: int
  packed: bool


def members(
  path: pathlib.Path,
) -> tuple[dict[str, Member], file_bytes.FileBytes]:
  """Returns the members of an archive by name, and the file for their bytes.

  Raises:
    ValueError: if the archive is damaged.
  """
  found = {}
  try:
    with open(path, 'rb') as file, zipfile.ZipFile(file) as archive:
      stamp = file_bytes.stamp_of(os.fstat(file.fileno()))
      _check_sizes(path, archive.infolist(), stamp[0])
      for info in archive.infolist():
        local = os.pread(file.fileno(), _LOCAL, info.header_offset)
        start = info.header_offset + _LOCAL
        start += int.from_bytes(local[26:28], 'little')
        start += int.from_bytes(local[28:30], 'little')
        packed = info.compress_type != zipfile.ZIP_STORED
        inside = start + info.compress_size <= stamp[0]
        sound = packed or info.compress_size == info.file_size
        if not (inside and sound and local[:4] == b'PK\x03\x04'):
          raise messages.damaged(
            path, f'its member {messages.quote(info.filename)} is cut'
          )
        if info.flag_bits & 1:
          raise ValueError(f'load: {path} is encrypted: unpack it')
        found[info.filename] = Member(start, info.file_size, packed)
  except ERRORS as error:
    raise messages.damaged(path, messages.shorten(error)) from None
  return found, file_bytes.FileBytes(path, stamp)


def _check_sizes(
  path: pathlib.Path, infos: list[zipfile.ZipInfo], size: int
) -> None:
  """Checks that members share no bytes, and unpack to no more than is likely.

  Deflated data is at most 1032 times as long once unpacked.
  """
  if sum(info.compress_size for info in infos) > size:
    raise messages.damaged(path, 'its members overlap')
  for info in infos:
    if sizes.is_bomb(info.file_size, info.compress_size):
      raise messages.damaged(
        path,
        f'its member {messages.quote(info.filename)} unpacks '
        f'{info.compress_size} bytes to {info.file_size}',
      )


def unpack(path: pathlib.Path, name: str, nbytes: int) -> bytes:
  """Returns the first bytes of a member, unpacked.

  Raises:
    ValueError: if there are fewer bytes, or they are damaged.
  """
  try:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
      content = file.read(nbytes)
  except ERRORS as error:
    raise messages.damaged(path, messages.shorten(error)) from None
  if len(content) < nbytes:
    raise messages.damaged(path, f'its member {messages.quote(name)} is cut')
  return content
