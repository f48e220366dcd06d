"""The place of a save: one file, or a folder for a file or for shards."""

import dataclasses
import os
import pathlib
import stat

from wsl.checkpoint._read import folder_files

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
    if target.path.exists() and not target.path.is_dir():
      raise NotADirectoryError(
        f'save: {target.path} is {_kind(target.path)}: give a folder, or a '
        f'file NAME{_SUFFIX}'
      )
    _check_file(target.index)
  _check_file(target.single)


def _check_file(path: pathlib.Path) -> None:
  """Checks that a regular file may be put at a path."""
  if path.is_symlink():
    # Files of the caches of Hugging Face and of git-annex are named by the hash
    # of their content: writing through the link would falsify them.
    raise ValueError(
      f'save: {path} is a link to {os.readlink(path)}: give that path itself, '
      'or remove the link'
    )
  if path.exists() and not path.is_file():
    kind = IsADirectoryError if path.is_dir() else FileExistsError
    raise kind(f'save: {path} is {_kind(path)}, not a file: give another path')


def _kind(path: pathlib.Path) -> str:
  """Names the kind of a file."""
  mode = path.stat().st_mode
  kinds = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFIFO: 'a pipe',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFREG: 'a file',
  }
  return kinds.get(stat.S_IFMT(mode), 'a device')
