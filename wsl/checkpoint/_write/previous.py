"""The files of the checkpoint that a save replaces: only those wsl has written.

A file is wsl's own if its metadata has the record of a tree.
"""

import pathlib
from typing import NamedTuple

from wsl.checkpoint import _structure
from wsl.checkpoint._read import foreign
from wsl.checkpoint._read.folders import files as folder_files
from wsl.checkpoint._write import target as target_lib

_START = b'{"__metadata__":{'
_MARK = f'"{_structure.KEY}":'.encode()


class Index(NamedTuple):
  """The shards that an index names, and whether wsl has written it."""

  shards: list[str]
  own: bool


def find(target: target_lib.Target, *, sharded: bool) -> list[pathlib.Path]:
  """Returns the files to remove when the new ones are in place, in order.

  The first one, if it is not a shard, is the file by which readers find the
  old checkpoint.

  Args:
    target: the place of the save.
    sharded: whether the new checkpoint has an index.

  Raises:
    ValueError: if wsl has not written one of them.
  """
  if not target.folder:
    return []
  found = []
  if sharded and target.single.exists():
    found.append(target.single)
  if target.index.exists():
    index = read_index(target.index)
    if index is None:
      return found  # Nothing can be read by it; it stays, or is replaced.
    if not index.own:
      raise _foreign(target, target.index)
    found += [target.parent / name for name in index.shards]
    if not sharded:
      found.insert(0, target.index)
  found = [path for path in found if path.exists() or path.is_symlink()]
  for path in found:
    if path != target.index and not is_own(path):
      raise _foreign(target, path)
  return found


def read_index(path: pathlib.Path) -> Index | None:
  """Returns the shards of an index, ``None`` if it is damaged."""
  try:
    shard_of, metadata = folder_files.read_index(path)
  except FileNotFoundError:
    return Index([], True)
  except ValueError:
    return None
  shards = list(dict.fromkeys(shard_of.values()))
  return Index(shards, _structure.KEY in metadata)


def is_own(path: pathlib.Path) -> bool:
  """Returns True if a file is safetensors that wsl has written."""
  if path.is_symlink() or not path.is_file():
    return False
  with open(path, 'rb') as file:
    length = int.from_bytes(file.read(8), 'little')
    start = file.read(len(_START))
    if start != _START or length > foreign.LONGEST_HEADER:
      return False
    return _MARK in file.read(length - len(start))


def _foreign(target: target_lib.Target, path: pathlib.Path) -> ValueError:
  """Returns the error for a checkpoint that another program has written."""
  return ValueError(
    f'save: {target.path} holds {path.name}, which wsl has not written and '
    'would remove: move it away, or give another folder'
  )
