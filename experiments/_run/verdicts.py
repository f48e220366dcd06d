"""Claims judged seed by seed."""

from collections.abc import Iterable
from typing import Any

import numpy as np


def judge(gains: Iterable[tuple[str, Any]]) -> dict[str, dict[str, Any]]:
  """Judges claims: each holds if it does in every seed.

  Args:
    gains: claims, and by how much each holds, ``[S]``.

  Returns:
    By claim, ``holds`` and ``by``.

  Example:
    >>> judge([('a above b', [0.1, -0.05])])
    {'a above b': {'holds': False, 'by': [0.1, -0.05]}}
  """
  return {
    claim: {
      'holds': bool((np.asarray(by) > 0).all()),
      'by': np.asarray(by, np.float64).tolist(),
    }
    for claim, by in gains
  }


def word(by: Any, *, each: str = 'seed') -> str:
  """Returns whether a gain is there in every seed, in the mean, or not.

  Example:
    >>> word([0.1, -0.05]), word([1.0, 2.0], each='run')
    ('in the mean only', 'in every run')
  """
  if (np.asarray(by) > 0).all():
    return f'in every {each}'
  return 'in the mean only' if np.mean(by) > 0 else 'no'


def lines(claims: dict[str, dict[str, Any]], *, factor: float = 1) -> list[str]:
  """Returns a line for each claim, with the gain of every seed.

  Example:
    >>> lines(judge([('a above b', [0.1, -0.05])]), factor=100)
    ['a above b: in the mean only (+10.0, -5.0)']
  """
  found = []
  for claim, verdict in claims.items():
    by = ', '.join(f'{factor * x:+.1f}' for x in verdict['by'])
    found.append(f'{claim}: {word(verdict["by"])} ({by})')
  return found
