"""Room on the disk, and errors of the file system in one line."""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import shutil

from wsl.checkpoint import _format


def check(folder: pathlib.Path, path: os.PathLike[str], needed: int) -> None:
  """Checks that there is room for the files of a save.

  Args:
    folder: a folder of the file system.
    path: the target, for messages.
    needed: bytes that will be written.

  Raises:
    OSError: (ENOSPC) with the bytes needed and available.
  """
  total, _, free = shutil.disk_usage(folder)
  if total and needed > free:  # Some file systems report zeros.
    raise OSError(
      errno.ENOSPC,
      f'save: {path} needs {_format.format_bytes(needed)} and '
      f'{_format.format_bytes(free)} are available: nothing was written, make '
      'room or give another path',
    )


@contextlib.contextmanager
def explained(path: os.PathLike[str]) -> Iterator[None]:
  """Raises errors of the file system as one line that names the target."""
  try:
    yield
  except OSError as error:
    if error.errno is None:
      raise
    reason = os.strerror(error.errno).lower()
    raise OSError(
      error.errno,
      f'save: {path} cannot be written, {reason}: what was there is unchanged',
    ) from error
