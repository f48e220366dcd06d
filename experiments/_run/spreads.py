"""Means with standard deviations, as numbers and as text."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def spread(values: Any) -> list[float]:
  """Returns ``[mean, sample standard deviation]``; one value deviates by 0.

  Example:
    >>> spread([1, 2, 3])
    [2.0, 1.0]
  """
  x = np.asarray(values, np.float64)
  return [float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else 0.0]


def columns(values: Any) -> list[list[float]]:
  """Returns the spread over the first axis of ``[S, N]``, N pairs."""
  return [spread(column) for column in np.asarray(values, np.float64).T]


def text(pair: Sequence[float], *, factor: float = 1, digits: int = 1) -> str:
  """Formats a spread.

  Example:
    >>> text([0.98, 0.005], factor=100)
    '98.0 ± 0.5'
  """
  mean, deviation = (factor * value for value in pair)
  return f'{mean:.{digits}f} ± {deviation:.{digits}f}'


def percent(pair: Sequence[float]) -> str:
  """Formats a spread of fractions in per cent."""
  return text(pair, factor=100)
