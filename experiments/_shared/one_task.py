"""One task: images to learn from, images held out from them, test images."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_collections

from experiments._shared import suite_tasks
from wsl import data, types

Examples = tuple[types.Array, types.Array]


class Images(NamedTuple):
  """Normalised images ``[N, h, w, c]`` and labels ``[N]``.

  Attributes:
    train: what networks learn from.
    held_out: training images that no network learns from.
    test: what is measured.
    classes: how many.
  """

  train: Examples
  held_out: Examples
  test: Examples
  classes: int


def load(config: ml_collections.ConfigDict) -> Images:
  """Reads a task.

  Args:
    config: ``data``, ``task`` and ``held_out``, how many training images are
      kept apart.

  Returns:
    The images, by mean 0 and variance 1 of all training pixels.

  Raises:
    ValueError: naming what is wrong in the config.
    FileNotFoundError: if the data is missing.
  """
  found = suite_tasks.load(
    config.data, (config.task,), validation=config.held_out
  )
  normal = lambda split: _normal(split, found.mean, found.std)
  return Images(
    normal(found.train),
    normal(found.validation),
    normal(found.test),
    found.classes,
  )


def _normal(split: data.Split, mean: float, std: float) -> Examples:
  x = (jnp.asarray(split.x[0], jnp.float32) - mean) / std
  return x, jnp.asarray(split.y[0], jnp.int32)


def check_sizes(limits: dict[str, tuple[Any, int, int | None]]) -> None:
  """Checks sizes in a config.

  Args:
    limits: by the field's name, its value, the least and the most.

  Raises:
    ValueError: naming the field.
  """
  for name, (value, least, most) in limits.items():
    if value < least or (most is not None and value > most):
      wanted = f'{least} or more' if most is None else f'{least} .. {most}'
      raise ValueError(f'{name}={value}: expected {wanted}')
