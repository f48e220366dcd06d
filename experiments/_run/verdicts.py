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


def lines(claims: dict[str, dict[str, Any]], *, factor: float = 1) -> list[str]:
  """Returns a line for each claim, with the gain of every seed.

  Example:
    >>> lines(judge([('a above b', [0.1, -0.05])]), factor=100)
    ['a above b: in the mean only (+10.0, -5.0)']
  """
  found = []
  for claim, verdict in claims.items():
    by = ', '.join(f'{factor * x:+.1f}' for x in verdict['by'])
    in_mean = 'in the mean only' if np.mean(verdict['by']) > 0 else 'no'
    found.append(
      f'{claim}: {"in every seed" if verdict["holds"] else in_mean} ({by})'
    )
  return found
