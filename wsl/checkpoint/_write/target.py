"""The place of a save: one file, or a folder for a file or for shards."""

import dataclasses
import os
import pathlib
import stat

from wsl.checkpoint._read import messages
from wsl.checkpoint._read.folders import files as folder_files

_SUFFIX = '.safetensors'


@dataclasses.dataclass(frozen=True)
class Target:
  """The place of a save.

  Attributes:
    path: the path as it was given, for messages.
    single: the file if all leaves are in one.
    folder: whether ``path`` is a folder, whose checkpoint is replaced.
  """

  path: pathlib.Path
  single: pathlib.Path
  folder: bool

  @property
  def parent(self) -> pathlib.Path:
    """Returns the folder of the files."""
    return self.single.parent

  @property
  def index(self) -> pathlib.Path:
    """Returns the index of shards."""
    return self.parent / folder_files.INDEX


def find(path: str | os.PathLike[str]) -> Target:
  """Returns the place that a path names."""
  given = pathlib.Path(path)
  if given.suffix == _SUFFIX:
    return Target(given, given, False)
  return Target(given, given / folder_files.SINGLE, True)


def check(target: Target) -> None:
  """Checks that the target is missing, or has the kind of file it needs.

  Raises:
    OSError: for a pipe, a device, or a folder in place of a file, and vice
      versa.
    ValueError: for a link in place of a file.
  """
  if target.folder:
    kind = _kind(target.path)
    if kind not in (None, 'a folder'):
      raise NotADirectoryError(
        f'save: {target.path} is {kind}: give a folder, or a file NAME{_SUFFIX}'
      )
    _check_file(target.index)
  _check_file(target.single)


def _check_file(path: pathlib.Path) -> None:
  """Checks that a regular file may be put at a path."""
  try:
    link = os.readlink(path)
  except OSError:
    link = None
  if link is not None:
    # Files of the caches of Hugging Face and of git-annex are named by the hash
    # of their content: writing through the link would falsify them.
    raise ValueError(
      f'save: {path} is a link to {link}: give that path itself, or remove the '
      'link'
    )
  kind = _kind(path)
  if kind not in (None, 'a file'):
    error = IsADirectoryError if kind == 'a folder' else FileExistsError
    raise error(f'save: {path} is {kind}, not a file: give another path')


def _kind(path: pathlib.Path) -> str | None:
  """Names the kind of a file; None if there is none."""
  try:
    mode = path.stat().st_mode
  except OSError:
    return None
  return messages.KINDS.get(stat.S_IFMT(mode), 'no regular file')
