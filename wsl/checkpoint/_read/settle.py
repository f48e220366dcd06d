"""Reading a checkpoint while a save replaces it."""

from collections.abc import Callable
import pathlib
from typing import TypeVar

from wsl.checkpoint._read.folders import files as folder_files

T = TypeVar('T')
# The saves that may replace a checkpoint while it is opened once.
_ATTEMPTS = 20


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
