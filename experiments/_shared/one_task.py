"""One task: training images, images held out from them, and test images."""

from typing import NamedTuple

import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._shared import suite_tasks
from wsl import data, types

Examples = tuple[types.Array, types.Array]


class Images(NamedTuple):
  """Normalised images ``[N, h, w, c]`` and labels ``[N]``.

  Attributes:
    train: to train networks on.
    held_out: training images that no network is trained on.
    test: for evaluation.
    classes: the number of classes.
  """

  train: Examples
  held_out: Examples
  test: Examples
  classes: int


class Setting(NamedTuple):
  """Config and images of a run.

  Attributes:
    config: of the run.
    images: of the task.
  """

  config: ml_collections.ConfigDict
  images: Images


def load(config: ml_collections.ConfigDict) -> Images:
  """Reads a task, and holds out some of its training images.

  Args:
    config: ``data``, ``task`` and ``held_out``, the number of images held out.

  Returns:
    The images, normalised by the mean and standard deviation of all training
    pixels.

  Raises:
    ValueError: naming the wrong field.
    FileNotFoundError: if the data is missing.
  """
  found = suite_tasks.load(
    config.data, (config.task,), validation=config.held_out
  )
  train, held_out, test = (
    (
      (jnp.asarray(split.x[0], jnp.float32) - found.mean) / found.std,
      jnp.asarray(split.y[0], jnp.int32),
    )
    for split in (found.train, found.validation, found.test)
  )
  return Images(train, held_out, test, found.classes)


def read(config: ml_collections.ConfigDict) -> data.Task:
  """Reads the embedded digits, or the task of a folder; pixels as stored."""
  if config.data == 'digits':
    return data.digits()
  return suite_tasks.folder(config.data, [config.task])[config.task]


def statistics(*splits: data.Split) -> tuple[float, float]:
  """Returns mean and standard deviation of all pixels."""
  x = np.concatenate([split.x for split in splits])
  return float(x.mean(dtype=np.float64)), float(x.std(dtype=np.float64))


def normal(split: data.Split, mean: object, std: object) -> Examples:
  """Normalises pixels in float64, adds a channel axis, converts labels."""
  x = np.asarray(split.x, np.float64)
  x = x[..., None] if x.ndim == 3 else x
  x = (x - np.asarray(mean)) / np.asarray(std)
  return jnp.asarray(x, jnp.float32), jnp.asarray(split.y, jnp.int32)
