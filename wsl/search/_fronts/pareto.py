"""Pareto fronts: which points no other point beats, and their hypervolume."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from wsl.search import _points

# Maps points [B, n] to M losses for each, [B, M]; lower is better.
Losses = Callable[[np.ndarray], Any]


class Front(NamedTuple):
  """Coefficients that trade the losses of tasks against each other.

  Attributes:
    points: the coefficients of the front, ``[P, n]``, by their first loss. If
      they are of task vectors, ``merge.materialize(deltas, points[i])`` is the
      merge i.
    losses: of them, ``[P, M]``: predicted by the surrogate in ``map_front``,
      evaluated in ``mm_mo``.
    samples: the evaluated coefficients, ``[K, n]``.
    sampled: their losses, ``[K, M]``; NaN where an evaluation failed.
    surrogate: maps points ``[B, n]`` to predicted losses ``[B, M]``.
  """

  points: np.ndarray
  losses: np.ndarray
  samples: np.ndarray
  sampled: np.ndarray
  surrogate: Any


def evaluated(name: str, losses: Losses, points: np.ndarray) -> np.ndarray:
  """Returns the losses of points, ``[B, M]``, in float64."""
  found = np.asarray(losses(points), np.float64)
  if found.ndim != 2 or len(found) != len(points) or found.shape[1] < 2:
    raise ValueError(
      f'{name}: losses returned shape {found.shape} for {len(points)} points: '
      'return [B, M], two losses or more'
    )
  return found


def front_order(losses: np.ndarray) -> np.ndarray:
  """Returns the indices of the points that no other beats, by first loss."""
  kept = np.flatnonzero(non_dominated(losses))
  return kept[np.argsort(losses[kept, 0], kind='stable')]


def non_dominated(losses: Any) -> np.ndarray:
  r"""Marks the points that no other point beats.

  A point is dominated if another one is nowhere above it and somewhere below.

  Args:
    losses: of P points, lower is better, ``[P, M]``; a point with NaN counts as
      dominated.

  Returns:
    Bools ``[P]``; equal points are both kept.

  Raises:
    ValueError: if ``losses`` is not a matrix.

  Example:
    >>> non_dominated([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0]]).tolist()
    [True, True, False]
  """
  losses = _matrix('non_dominated', losses)
  whole = ~np.isnan(losses).any(1)
  kept = whole.copy()
  for i, row in enumerate(losses):
    above, below = losses[whole] <= row, losses[whole] < row
    kept[i] &= not (above.all(1) & below.any(1)).any()
  return kept


def hypervolume(losses: Any, *, reference: Any) -> float:
  r"""Returns the volume between points and a reference that they beat.

  .. math:: \operatorname{vol} \bigcup_{i} \{ y : \ell_i \le y \le r \}

  Larger is better. It never falls when a point is added.

  Args:
    losses: of P points, lower is better, ``[P, M]``; those that do not beat the
      reference, or have NaN, add nothing.
    reference: r, ``[M]``.

  Returns:
    The volume, exact.

  Raises:
    ImportError: if the package ``pymoo`` is not installed.
    ValueError: if ``losses`` is not a matrix, or r not one number for each
      column.

  Example:
    >>> hypervolume([[0.0, 1.0], [1.0, 0.0]], reference=[2.0, 2.0])
    3.0

  Reference:
    Zitzler and Thiele, "Multiobjective Optimization Using Evolutionary
    Algorithms: A Comparative Case Study", 1998, PPSN V.
  """
  losses = _matrix('hypervolume', losses)
  reference = np.asarray(reference, np.float64)
  if reference.shape != losses.shape[1:] or not np.isfinite(reference).all():
    raise ValueError(
      f'hypervolume: reference has shape {reference.shape}: give one finite '
      f'number for each of {losses.shape[1]} losses'
    )
  better = (losses < reference).all(1)
  if not better.any():
    return 0.0
  library = _points.optional('pymoo.indicators.hv', 'hypervolume')
  return float(library.HV(ref_point=reference)(losses[better]))


def _matrix(name: str, losses: Any) -> np.ndarray:
  losses = np.asarray(losses, np.float64)
  if losses.ndim != 2 or not losses.shape[1]:
    raise ValueError(
      f'{name}: losses have shape {losses.shape}: give [P, M], a row for each '
      'point'
    )
  return losses
