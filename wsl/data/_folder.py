"""Image tasks from local files."""

from collections.abc import Callable, Sequence
import os
import pathlib
import re
from typing import Any
import zipfile
import zlib

import numpy as np

from wsl import tree
from wsl.data import _idx, _split

_KEYS = ('train_x', 'train_y', 'test_x', 'test_y')
_EXPECTED = (
  'an .npz file with arrays TASK/train_x, TASK/train_y, TASK/test_x, '
  'TASK/test_y, or a folder of .npz files or of MNIST-named IDX files '
  '(train-images-idx3-ubyte.gz ...)'
)
# MNIST's names; some mirrors write a dot for the second hyphen.
_IDX_NAMES = {
  'train_x': r'train-images[-.]idx\d-ubyte(\.gz)?',
  'train_y': r'train-labels[-.]idx1-ubyte(\.gz)?',
  'test_x': r't10k-images[-.]idx\d-ubyte(\.gz)?',
  'test_y': r't10k-labels[-.]idx1-ubyte(\.gz)?',
}


def folder(
  path: str | os.PathLike[str], *, tasks: Sequence[str] | None = None
) -> dict[str, _split.Task]:
  """Reads image tasks from a folder, or from one ``.npz`` file.

  A task is one of: keys ``TASK/train_x`` (``train_y``, ``test_x``, ``test_y``)
  of an ``.npz`` file; a file ``NAME.npz`` with keys ``train_x`` and so on; the
  folder, or a subfolder, with the four IDX files of MNIST, plain or ``.gz``.
  Only the requested tasks are read.

  Args:
    path: the folder or file.
    tasks: which tasks, in this order; ``None`` takes all, by name.

  Returns:
    A dict from a task's name to its arrays, ``x`` as stored.

  Raises:
    FileNotFoundError: if ``path`` does not exist or contains no task.
    ValueError: if a file is damaged, a task is missing, or images and labels
      differ in number.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> where = pathlib.Path(tempfile.mkdtemp(), 'two.npz')
    >>> x, y = np.zeros((3, 8, 8), np.uint8), np.arange(3)
    >>> parts = dict(train_x=x, train_y=y, test_x=x, test_y=y)
    >>> np.savez(where, **{f'a/{k}': v for k, v in parts.items()})
    >>> folder(where)['a'].train.x.shape
    (3, 8, 8)
  """
  place = pathlib.Path(path)
  if not place.exists():
    raise FileNotFoundError(
      f'no data at {place}: expected {_EXPECTED}; give another path'
    )
  found = _in_npz(place) if place.is_file() else _in_folder(place)
  if not found:
    raise FileNotFoundError(
      f'no task in {place}: expected {_EXPECTED}; give another path'
    )
  for name in tasks or ():
    if name not in found:
      raise ValueError(
        f"{place} has no task '{name}'{tree.nearest(name, list(found))}: it "
        f'has {", ".join(sorted(found))}'
      )
  return {name: _task(name, found[name]) for name in tasks or sorted(found)}


def _in_folder(place: pathlib.Path) -> dict[str, Callable[[str], np.ndarray]]:
  """Finds tasks; each is a function that reads one of the four arrays."""
  found: dict[str, Callable[[str], np.ndarray]] = {}
  for file in sorted(place.glob('*.npz')):
    found.update(_in_npz(file))
  for inner in [place, *sorted(p for p in place.iterdir() if p.is_dir())]:
    files = _idx_files(inner)
    if len(files) == len(_KEYS):
      found[inner.resolve().name] = _reader_of(files)
    elif files:
      missing = next(key for key in _KEYS if key not in files)
      raise FileNotFoundError(
        f'{inner} has {next(iter(files.values())).name} but no file named '
        f'{_IDX_NAMES[missing]}: complete it, or give another path'
      )
  return found


def _reader_of(files: dict[str, pathlib.Path]) -> Callable[[str], np.ndarray]:
  return lambda key: _idx.read(files[key])


def _idx_files(place: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the IDX files of a folder, by the array that they hold."""
  return {
    key: file
    for file in sorted(place.iterdir(), reverse=True)
    for key, pattern in _IDX_NAMES.items()
    if re.fullmatch(pattern, file.name)
  }


def _in_npz(file: pathlib.Path) -> dict[str, Callable[[str], np.ndarray]]:
  """Finds the tasks of an ``.npz`` file, each with a reader of its arrays."""
  try:
    with file.open('rb') as handle, np.load(handle) as stored:
      names = list(stored.files) if hasattr(stored, 'files') else []
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise _damaged(file, error) from None
  tasks = {name.rpartition('/')[0] for name in names if name.endswith(_KEYS)}

  def reader(task: str) -> Callable[[str], np.ndarray]:
    def read(key: str) -> np.ndarray:
      name = f'{task}/{key}' if task else key
      if name not in names:
        raise ValueError(
          f"{file} has no array '{name}'{tree.nearest(name, names)}: a task "
          f'needs {", ".join(_KEYS)}'
        )
      try:
        with file.open('rb') as handle, np.load(handle) as stored:
          return stored[name]
      except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(file, error) from None

    return read

  return {task or file.stem: reader(task) for task in tasks}


def _task(name: str, read: Callable[[str], np.ndarray]) -> _split.Task:
  """Reads and checks both splits of a task."""
  return _split.Task(
    *(
      _check(name, part, read(f'{part}_x'), read(f'{part}_y'))
      for part in ('train', 'test')
    )
  )


def _check(name: str, part: str, x: np.ndarray, y: np.ndarray) -> _split.Split:
  """Checks shapes and values of one split, and casts the labels to int32."""
  label = f"task '{name}'"
  if y.ndim != 1 or len(x) != len(y) or not len(y):
    raise ValueError(
      f'{label}: {part}_x is {list(x.shape)} and {part}_y {list(y.shape)}: '
      'expected [N, ...] and [N] with one N >= 1'
    )
  if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
    raise ValueError(
      f'{label}: {part}_y must hold integers >= 0, found {y.dtype} with '
      f'least value {y.min()}'
    )
  if not np.issubdtype(x.dtype, np.number) or not np.isfinite(x).all():
    raise ValueError(f'{label}: {part}_x must hold finite numbers')
  return _split.Split(x, y.astype(np.int32))


def _damaged(file: pathlib.Path, error: Any) -> ValueError:
  first = str(error).partition('\n')[0]
  return ValueError(
    f'{file} cannot be read as .npz ({first}): copy it again, or take it away'
  )
