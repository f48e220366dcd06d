"""Points of a search: their checks, their evaluation, the best of them."""

from collections.abc import Callable
import importlib
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import types

# Maps points [B, n] to a loss for each, [B]; lower is better.
Loss = Callable[[np.ndarray], Any]


class Search(NamedTuple):
  """The result of a search for the lowest loss.

  Attributes:
    point: the best point, ``[n]``.
    loss: its loss.
    points: all points in the order of their evaluation, ``[E, n]``.
    losses: their losses, ``[E]``; NaN where an evaluation failed.
  """

  point: np.ndarray
  loss: float
  points: np.ndarray
  losses: np.ndarray


def evaluated(name: str, loss: Loss, points: np.ndarray) -> np.ndarray:
  """Returns the losses of points, ``[B]``, in float64."""
  found = np.asarray(loss(points), np.float64)
  if found.shape != (len(points),):
    raise ValueError(
      f'{name}: loss returned shape {found.shape} for {len(points)} points: '
      'return one number for each point, [B]'
    )
  return found


def best(name: str, points: np.ndarray, losses: np.ndarray) -> Search:
  """Returns the result of a search from all its evaluations."""
  if not np.isfinite(losses).any():
    raise FloatingPointError(
      f'{name}: the loss is finite at none of {len(losses)} points'
    )
  i = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
  return Search(points[i], float(losses[i]), points, losses)


def check_count(name: str, argument: str, value: Any, least: int) -> int:
  """Returns a whole number, or raises in one line."""
  if not isinstance(value, (int, np.integer)) or value < least:
    raise ValueError(
      f'{name}: {argument}={value!r} is not a whole number >= {least}'
    )
  return int(value)


def box(
  name: str, lower: Any, upper: Any, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the bounds of each of n numbers, ``[n]`` each."""
  found = []
  for argument, value in {'lower': lower, 'upper': upper}.items():
    value = np.asarray(value, np.float64)
    if value.shape not in ((), (size,)) or np.isnan(value).any():
      raise ValueError(
        f'{name}: {argument} has shape {value.shape}: give one number, or one '
        f'for each of the {size} coordinates, none of them NaN'
      )
    found.append(np.broadcast_to(value, size))
  if not (found[0] < found[1]).all():
    raise ValueError(f'{name}: lower={lower} is not below upper={upper}')
  return found[0], found[1]


def finite_box(
  name: str, lower: Any, upper: Any, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the bounds of each of n numbers, all of them finite."""
  low, high = box(name, lower, upper, size)
  if not np.isfinite([low, high]).all():
    raise ValueError(f'{name}: lower and upper must be finite')
  return low, high


def from_cube(cube: np.ndarray, low: Any, high: Any) -> np.ndarray:
  """Maps points of the unit cube to a box, which they do not leave."""
  return np.clip(low + (high - low) * cube, low, high)


def optional(module: str, name: str) -> Any:
  """Imports a module of the extra ``[search]`` for a function."""
  try:
    return importlib.import_module(module)
  except ImportError:
    package = module.partition('.')[0].replace('sklearn', 'scikit-learn')
    raise ImportError(
      f'{name} needs the package {package}: pip install '
      "'weight-space-lab[search]'"
    ) from None


def generator(key: types.PRNGKey) -> np.random.Generator:
  """Returns numpy's generator of a key, for the libraries that need one."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
