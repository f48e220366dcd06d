"""Claims about lines and subsets, judged seed by seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._merge_lm import titles
from experiments._run import verdicts

# The merge that is said to succeed in the wild, with which others are compared:
# task arithmetic. The average of n experts is that with the coefficient 1 / n.
ARITHMETIC = {'untuned': 'mean', 'tuned': 'sum'}
SUCCESS = 0.8  # share of merges above the base that is published for it


def of_lines(
  names: Sequence[str], base: np.ndarray, lines: dict[str, Any]
) -> dict[str, Any]:
  """Judges whether points between two experts are better than the ends.

  Args:
    names: of the D domains.
    base: test bits for each byte, ``[S, D]``.
    lines: from ``lines.measure``.

  Returns:
    The claims; ``by`` is that of the pair with the smallest gain.
  """
  over_ends, over_base = [], []
  for pair, found in zip(lines['pairs'], np.asarray(lines['bits'])):
    means = found.mean(-1)  # [points, S]
    over_ends.append(np.minimum(means[0], means[-1]) - means[1:-1].min(0))
    own = base[:, [names.index(name) for name in pair]]
    # Of each point the domain that gains less.
    over_base.append((own - found).min(-1).max(0))
  return {
    'every line has a point better than both ends': _claim(
      np.min(over_ends, axis=0)
    ),
    'every line has a point better than the base in both domains': _claim(
      np.min(over_base, axis=0)
    ),
  }


def of_subsets(subsets: dict[str, Any]) -> dict[str, Any]:
  """Judges the claims of In-the-Wild merging.

  Args:
    subsets: by method, from ``wild.measure``.

  Returns:
    The claims, for coefficients with and without validation.
  """
  claims: dict[str, Any] = {}
  for kind, reference in ARITHMETIC.items():
    found = {
      name: {k: np.asarray(v) for k, v in x[kind].items()}
      for name, x in subsets.items()
    }
    if reference not in found:
      continue
    arithmetic, named = found[reference], titles.title(reference)
    share = 100 * arithmetic['beats_base'].mean(1)
    least = 100 * SUCCESS
    claims |= {
      f'{kind} {named}: {least:.0f} % are better than the base': _claim(
        share - least, least=0.0
      ),
      f'{kind} {named}: better than the best member': _claim(
        arithmetic['over_best'].mean(1)
      ),
    }
    for name, other in found.items():
      if name not in ARITHMETIC.values():
        label = f'{kind} {titles.title(name)}'
        claims[f'{label}: not above {named}'] = _claim(
          (arithmetic['over_base'] - other['over_base']).mean(1), least=0.0
        )
        claims[f'{label}: worse with more members'] = _claim(
          other['over_base'][:, 0] - other['over_base'][:, -1]
        )
  return claims


def _claim(by: np.ndarray, least: float | None = None) -> dict[str, Any]:
  """Returns whether all are positive, or at least ``least``."""
  holds = (by > 0).all() if least is None else (by >= least).all()
  return {'holds': bool(holds), 'by': by.tolist()}


def verdict(found: dict[str, Any]) -> str:
  """Returns the verdict on a claim in words."""
  if found['holds']:
    return 'in every seed'
  return verdicts.word(found['by'])
