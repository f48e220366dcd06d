"""The files of a safetensors checkpoint: one, or shards with or without index.

Headers are read here, values are not: every leaf is on demand.
"""

from collections.abc import Callable, Iterable, Mapping
import pathlib
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np

from wsl import tree
from wsl.checkpoint import _format, _read_leaf, _sources

Free: TypeAlias = list[np.ndarray] | None
T = TypeVar('T')
# The saves that may replace a checkpoint while it is opened once.
_ATTEMPTS = 20


class Files(NamedTuple):
  """The leaves of one or more files by name, and their metadata."""

  leaves: dict[str, tree.Stored]
  metadata: dict[str, str]


def open_files(path: pathlib.Path, *, finite: bool, free: Free) -> Files:
  """Opens a file, or the file or the shards of a folder.

  Args:
    path: a safetensors file, an index of shards, or a folder.
    finite: whether reading a value that is not finite is an error.
    free: see ``_read_leaf.Fetch``.

  Raises:
    FileNotFoundError: if there is no file, or a shard is missing.
    ValueError: if a file is damaged or of another format, or a leaf is in two
      files, or in a file and not in its index.
  """
  sources = _sources.find(path)
  headers = {file: _format.read_header(file) for file in sources.files}
  file_of = _join(headers)
  if sources.file_of is not None:
    _check_index(sources, file_of)
    file_of = sources.file_of
  notes = combine([sources.metadata, *(h.metadata for h in headers.values())])
  leaves = {}
  for name, file in file_of.items():
    entry, stamp = headers[file].entries[name], headers[file].stamp
    fetch = _read_leaf.Fetch(
      file, name, entry, stamp, finite, free, metadata=notes
    )
    leaves[name] = tree.Stored(fetch, entry.shape, entry.dtype, fetch.read_into)
  return Files(leaves, notes)


def settled(path: pathlib.Path, read: Callable[[], T]) -> T:
  """Returns ``read()``, called again if a save replaced the checkpoint.

  A save removes the old shards after it has replaced the index. A reader that
  has read the old index then fails, and finds the new shards when it starts
  again.

  Args:
    path: a file, an index or a folder.
    read: opens or reads it; has no other effect.
  """
  for _ in range(_ATTEMPTS):
    before = _state(path)
    try:
      return read()
    except (OSError, ValueError):
      if _state(path) == before:
        raise
  return read()


def _state(path: pathlib.Path) -> list[tuple[int, int] | None]:
  """Returns the stamps of the files by which a checkpoint is found."""
  folder = path.is_dir()
  names = (_sources.SINGLE, _sources.INDEX)
  found: list[tuple[int, int] | None] = []
  for file in [path / name for name in names] if folder else [path]:
    try:
      status = file.stat()
    except OSError:
      found.append(None)
    else:
      found.append((status.st_size, status.st_mtime_ns))
  return found


def combine(notes: Iterable[Mapping[str, str]]) -> dict[str, str]:
  """Merges metadata; a key with two different values is left out."""
  found: dict[str, str] = {}
  conflicts = set()
  for note in notes:
    for key, value in note.items():
      if found.setdefault(key, value) != value:
        conflicts.add(key)
  return {k: v for k, v in found.items() if k not in conflicts}


def _join(
  headers: Mapping[pathlib.Path, _format.Header],
) -> dict[str, pathlib.Path]:
  """Returns the file of each leaf, which must be in one file only."""
  file_of: dict[str, pathlib.Path] = {}
  for file, header in headers.items():
    for name in header.entries:
      if name in file_of:
        raise ValueError(
          f"load: leaf '{name}' is in both {file_of[name]} and {file.name}: "
          'remove one of them, or copy the checkpoint again'
        )
      file_of[name] = file
  return file_of


def _check_index(
  sources: _sources.Sources, file_of: Mapping[str, pathlib.Path]
) -> None:
  """Checks that the index and the headers of the shards agree."""
  promised = sources.file_of or {}
  for name, file in promised.items():
    if file_of.get(name) != file:
      raise _format.damaged(
        sources.origin,
        f"shard {file.name} has no leaf '{name}', which the index promises",
      )
  for name, file in file_of.items():
    if name not in promised:
      raise ValueError(
        f"load: shard {file.name} has a leaf '{name}' that {sources.origin} "
        'omits: add it to the index, or remove the index to load all shards'
      )
