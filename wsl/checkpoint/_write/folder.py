"""A new folder of several files: visible at once, when all are on the disk."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil

from wsl.checkpoint._write import flush, lock, space


@contextlib.contextmanager
def new(caller: str, path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a hidden folder to be filled, which is then renamed to a path.

  What a killed writer has left in it is removed first.

  Args:
    caller: the function, as the user called it.
    path: the folder; it must not exist, or be empty.

  Raises:
    BlockingIOError: if another process writes it.
    FileExistsError: if it exists and is not empty.
  """
  if path.exists() and not (path.is_dir() and not any(path.iterdir())):
    raise FileExistsError(
      f'{caller}: {path} exists: remove it, or give a new folder'
    )
  stage = path.parent / f'.{path.name}.save'
  part = stage / 'part'
  with space.explained(path):
    path.parent.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    stack.callback(lock.remove_folder, stage)
    stack.enter_context(lock.hold(stage / 'lock', f'{caller}: {path}'))
    stack.callback(shutil.rmtree, part, ignore_errors=True)
    with space.explained(path):
      shutil.rmtree(part, ignore_errors=True)
      part.mkdir()
    yield part
    with space.explained(path):
      # The new name of a folder is that of its files as well.
      flush.names(part)
      os.replace(part, path)
      flush.names(path.parent)


def write_text(file: pathlib.Path, text: str) -> None:
  """Writes a file and waits until it is on the disk."""
  with open(file, 'w', encoding='utf-8') as stream:
    stream.write(text)
    stream.flush()
    os.fsync(stream.fileno())
