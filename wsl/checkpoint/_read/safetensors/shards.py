"""The files of a safetensors checkpoint: one, or shards with or without index.

Headers are read here, values are not: every leaf is on demand.
"""

from collections.abc import Callable, Iterable, Mapping
import pathlib
from typing import Any, NamedTuple, TypeVar

from wsl import tree
from wsl.checkpoint import _digests
from wsl.checkpoint._read import (
  file_bytes,
  folder_files,
  messages,
  stored,
)
from wsl.checkpoint._read.safetensors import entry as entry_lib
from wsl.checkpoint._read.safetensors import header as header_lib

T = TypeVar('T')
# The saves that may replace a checkpoint while it is opened once.
_ATTEMPTS = 20


class Files(NamedTuple):
  """The leaves of one or more files by name, and their metadata."""

  leaves: dict[str, tree.Stored]
  metadata: dict[str, str]


def open_files(
  path: pathlib.Path, *, finite: bool, free: file_bytes.Free
) -> Files:
  """Opens a file, or the file or the shards of a folder.

  Args:
    path: a safetensors file, an index of shards, or a folder.
    finite: whether reading a value that is not finite is an error.
    free: see ``file_bytes.Free``.

  Raises:
    FileNotFoundError: if there is no file, or a shard is missing.
    ValueError: if a file is damaged or of another format, or a leaf is in two
      files, or in a file and not in its index.
  """
  return _open(folder_files.find(path), finite, free)


def _open(
  sources: folder_files.Sources, finite: bool, free: file_bytes.Free
) -> Files:
  """Reads the headers of all files, and joins their leaves."""
  headers = {file: header_lib.read_header(file) for file in sources.files}
  notes = combine([sources.metadata, *(h.metadata for h in headers.values())])
  notes.pop(_digests.KEY, None)
  options = stored.Options(sources.origin, finite, free, notes)
  leaves: dict[str, tree.Stored] = {}
  for path, header in headers.items():
    found = entry_lib.leaves(path, header, options)
    if not leaves.keys().isdisjoint(found):
      raise _in_two(next(n for n in found if n in leaves), leaves, path)
    leaves = {**leaves, **found} if leaves else found
  if sources.file_of is not None:
    _check_index(sources, sources.file_of, headers)
    leaves = {name: leaves[name] for name in sources.file_of}
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
  names = (folder_files.SINGLE, folder_files.INDEX)
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


def _in_two(
  name: str, leaves: dict[str, tree.Stored], path: pathlib.Path
) -> ValueError:
  """Returns the error for a leaf that two files hold."""
  fetch: Any = leaves[name].fetch
  return ValueError(
    f'load: leaf {messages.quote(name)} is in both {fetch.origin} and '
    f'{path.name}: remove one of them, or copy the checkpoint again'
  )


def _check_index(
  sources: folder_files.Sources,
  promised: Mapping[str, pathlib.Path],
  headers: Mapping[pathlib.Path, entry_lib.Header],
) -> None:
  """Checks that the index and the headers of the shards agree."""
  for name, file in promised.items():
    if name not in headers[file].entries:
      raise messages.damaged(
        sources.origin,
        f'shard {file.name} has no leaf {messages.quote(name)}, which the '
        'index promises',
      )
  for file, header in headers.items():
    for name in header.entries:
      if name not in promised:
        raise ValueError(
          f'load: shard {file.name} has a leaf {messages.quote(name)} that '
          f'{sources.origin} omits: add it to the index, or remove the index '
          'to load all shards'
        )
