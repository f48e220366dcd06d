"""The losses of held-out batches on the path."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsl import types
from wsl.align import _permutation
from wsl.align._learned import chart as chart_lib
from wsl.align._learned import steps


def places(
  path: tuple[float, float], points: int, dtype: np.dtype
) -> np.ndarray:
  """Returns the midpoints of equal parts of the path."""
  low, high = path
  return np.asarray(
    low + (high - low) * (np.arange(points) + 0.5) / points, dtype
  )


def score(
  models: dict[str, types.Params],
  batches: Sequence[Any],
  places: np.ndarray,
  chart: chart_lib.Chart,
  loss_fn: steps.Loss,
  state: steps.State,
  permutation: _permutation.Permutation,
) -> float:
  """Returns the mean loss of some batches over places of the path."""
  losses = [
    steps.path_losses(
      state._replace(optimizer=None),
      models,
      permutation,
      batch,
      places,
      chart=chart,
      loss_fn=loss_fn,
    )
    for batch in batches
  ]
  return float(np.mean(np.asarray(losses, np.float64)))


def is_lowest(scores: list[float]) -> bool:
  """Returns True if the last score is lower than all before it."""
  return scores[-1] < min(scores[:-1], default=np.inf)
