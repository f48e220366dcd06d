"""Error messages of readers: one line, whatever the file holds."""

from collections.abc import Sequence
import errno
import os
import pathlib
import stat

_LONGEST = 60
_SHOWN = 4
KINDS = {
  stat.S_IFREG: 'a file',
  stat.S_IFDIR: 'a folder',
  stat.S_IFIFO: 'a named pipe',
  stat.S_IFSOCK: 'a socket',
  stat.S_IFCHR: 'a device',
  stat.S_IFBLK: 'a device',
}


def quote(name: object) -> str:
  """Quotes a name of a file's own choice: escaped, shortened, on one line."""
  text = repr(name if isinstance(name, str) else str(name))
  if len(text) <= _LONGEST:
    return text
  return f"'...{text[-_LONGEST + 4 :]}"


def listed(names: Sequence[object]) -> str:
  """Lists a few names of a file's own choice."""
  shown = ', '.join(map(quote, names[:_SHOWN]))
  return f'[{shown}{", ..." if len(names) > _SHOWN else ""}]'


def shorten(error: object) -> str:
  """Returns the start of another library's message, on one line."""
  return ' '.join(str(error).split())[:80]


def damaged(path: pathlib.Path, what: str) -> ValueError:
  """Returns the error for a damaged file."""
  return ValueError(f'load: {path} is damaged, copy it again: {what}')


def check_regular(path: pathlib.Path) -> None:
  """Checks that a path is a file; opening a pipe would wait for ever.

  Raises:
    FileNotFoundError: if there is nothing, or a link to nothing.
    ValueError: if it is not a regular file, or a link to itself.
  """
  try:
    mode = os.stat(path).st_mode
  except (FileNotFoundError, NotADirectoryError):
    remedy = 'check the path'
    if path.is_symlink():
      remedy = f'it is a link to {os.readlink(path)}, fetch that file'
    raise FileNotFoundError(
      f'load: there is no file {path}: {remedy}'
    ) from None
  except OSError as error:
    if error.errno != errno.ELOOP:
      raise
    raise ValueError(
      f'load: {path} is a link that leads to itself: replace it by the file'
    ) from None
  if not stat.S_ISREG(mode):
    kind = KINDS.get(stat.S_IFMT(mode), 'no regular file')
    raise ValueError(f'load: {path} is {kind}: give the path of a file')
