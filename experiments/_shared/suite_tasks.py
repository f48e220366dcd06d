"""The tasks of a vision suite, all of one shape, stacked."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments._run import checks
from wsl import data


class Tasks(NamedTuple):
  """T tasks; images are ``[T, N, height, width, channels]``, labels ``[T, N]``.

  Attributes:
    names: of the tasks.
    train: training images.
    validation: held out from the training images, to choose hyperparameters.
    test: used once, for the table.
    classes: size of the largest label set.
    mean: of all training pixels, as stored.
    std: of all training pixels, as stored.
  """

  names: tuple[str, ...]
  train: data.Split
  validation: data.Split
  test: data.Split
  classes: int
  mean: float
  std: float


def load(
  source: str, names: Sequence[str], *, validation: int, seed: int = 0
) -> Tasks:
  """Reads and stacks tasks.

  Args:
    source: ``'digits'`` for transformations of the embedded digits, or a path
      for ``data.folder``.
    names: transformations, or tasks in the folder.
    validation: how many training images of each task are held out.
    seed: of the choice; the same images are held out in every task.

  Returns:
    The tasks, truncated to the size of the smallest.

  Raises:
    FileNotFoundError: if the folder is missing.
    ValueError: naming the unknown task, or the one of another shape.
  """
  found = digits(names) if source == 'digits' else folder(source, names)
  shapes = {name: task.train.x.shape[1:] for name, task in found.items()}
  for name, shape in shapes.items():
    if shape != shapes[names[0]]:
      raise ValueError(
        f"tasks: images of '{name}' are {list(shape)}, of '{names[0]}' "
        f'{list(shapes[names[0]])}: one encoder needs one shape'
      )
  count = min(len(task.train.y) for task in found.values())
  if not 0 < validation < count:
    raise ValueError(
      f'validation={validation}: expected 1 .. {count - 1} of the {count} '
      'training images of a task'
    )
  order = np.random.RandomState(seed).permutation(count)
  train = _stack([task.train for task in found.values()], order[validation:])
  return Tasks(
    names=tuple(names),
    train=train,
    validation=_stack(
      [task.train for task in found.values()], order[:validation]
    ),
    test=_stack([task.test for task in found.values()], None),
    classes=1 + max(int(task.train.y.max()) for task in found.values()),
    mean=float(train.x.mean(dtype=np.float64)),
    std=float(train.x.std(dtype=np.float64)),
  )


def folder(path: str, names: Sequence[str]) -> dict[str, data.Task]:
  """Reads tasks of a folder; the error of a missing one names the flag."""
  try:
    return data.folder(path, tasks=list(names))
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{error}: --config.data=PATH') from None


def digits(names: Sequence[str]) -> dict[str, data.Task]:
  """Transforms the embedded digits; the labels remain the digits.

  Args:
    names: of ``TRANSFORMS``.

  Returns:
    The tasks by name; an image is in the same split of each.
  """
  for name in names:
    checks.choice('tasks', name, TRANSFORMS, of=' of the digits')
  task = data.digits()
  return {
    name: data.Task(
      *(data.Split(TRANSFORMS[name](split.x), split.y) for split in task)
    )
    for name in names
  }


def _invert_rows(x: np.ndarray) -> np.ndarray:
  """Inverts every second row of the images."""
  odd = np.arange(x.shape[1])[None, :, None] % 2 == 1
  return np.where(odd, 1 - x, x)


def _checker(x: np.ndarray) -> np.ndarray:
  """Inverts every second pixel, in the pattern of a checkerboard."""
  odd = np.indices(x.shape[1:3]).sum(0) % 2 == 1
  return np.where(odd, 1 - x, x)


def _shuffle_blocks(x: np.ndarray) -> np.ndarray:
  """Permutes the sixteen 2x2 blocks, the same way in every image."""
  order = np.random.RandomState(1).permutation(16)
  blocks = x.reshape(-1, 4, 2, 4, 2).swapaxes(2, 3).reshape(-1, 16, 2, 2)
  grid = blocks[:, order].reshape(-1, 4, 4, 2, 2).swapaxes(2, 3)
  return grid.reshape(x.shape)


TRANSFORMS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
  'upright': lambda x: x,
  'rotated': lambda x: np.rot90(x, axes=(1, 2)),
  'inverted': lambda x: 1 - x,
  'shuffled': _shuffle_blocks,
  'mirrored': lambda x: x[:, :, ::-1],
  'turned': lambda x: np.rot90(x, 2, axes=(1, 2)),
  'striped': _invert_rows,
  'rolled': lambda x: np.roll(x, (4, 4), axis=(1, 2)),
  'flipped': lambda x: x[:, ::-1],
  'transposed': lambda x: np.swapaxes(x, 1, 2),
  'checkered': _checker,
  'interleaved': lambda x: np.concatenate([x[:, ::2], x[:, 1::2]], 1),
}


def _stack(splits: Sequence[data.Split], rows: np.ndarray | None) -> data.Split:
  """Stacks some images of each task; by default as many as the smallest has."""
  if rows is None:
    rows = np.arange(min(len(split.y) for split in splits))
  x = np.stack([split.x[rows] for split in splits])
  x = x[..., None] if x.ndim == 4 else x
  return data.Split(x, np.stack([split.y[rows] for split in splits]))
