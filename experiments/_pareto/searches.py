"""Searches of a front at several budgets of evaluations."""

from collections.abc import Callable, Sequence
import math
from typing import Any

import numpy as np

from wsl import search, types

# Maps points [B, n] to errors [B, T].
Evaluate = Callable[[np.ndarray], np.ndarray]
# The points and errors that a search has evaluated at each budget.
Found = list[tuple[np.ndarray, np.ndarray]]

START, BATCH = 10, 5  # of Bayesian optimisation, as in the paper
BAYESIAN: dict[str, dict[str, Any]] = {
  'mm_mo': {},
  'no_mutants': {'crossover': None},
  'no_screening': {'proposals': BATCH},
  'ehvi': {'crossover': None, 'proposals': BATCH},
  'own_reference': {'reference': None},
  'mm_mo_dare_ties': {},
}
METHODS = ('random', 'map', 'map_adaptive', *BAYESIAN)


def run(
  method: str,
  evaluate: Callable[[str], Evaluate],
  size: int,
  budgets: Sequence[int],
  reference: Sequence[float],
  key: types.PRNGKey,
) -> Found:
  """Runs a search of the unit cube.

  Args:
    method: one of ``METHODS``.
    evaluate: maps a name to a function that evaluates points; one name for each
      search, whose evaluations it may store.
    size: n, the number of coordinates.
    budgets: numbers of evaluations, rising.
    reference: of the hypervolume, ``[T]``.
    key: of all draws.

  Returns:
    For each budget the points that were evaluated and their errors; none where
    the budget does not suffice for the method.
  """
  if method in BAYESIAN:
    arguments = {'reference': reference} | BAYESIAN[method]
    front = search.mm_mo(
      evaluate('all'),
      size,
      start=START,
      rounds=(budgets[-1] - START) // BATCH,
      batch=BATCH,
      key=key,
      **arguments,
    )
    return [(front.samples[:n], front.sampled[:n]) for n in budgets]
  if method == 'random':
    points = _uniform(size, budgets[-1], key)
    errors = evaluate('all')(points)
    return [(points[:n], errors[:n]) for n in budgets]
  adaptive = method == 'map_adaptive'
  return [
    _map(evaluate(str(n)), size, n, reference, key, adaptive=adaptive)
    for n in budgets
  ]


def _uniform(size: int, count: int, key: types.PRNGKey) -> np.ndarray:
  """Returns the points of a random search."""
  zeros = lambda points: np.zeros(len(points))
  return search.random_search(zeros, size, evaluations=count, key=key).points


def _map(
  evaluate: Evaluate,
  size: int,
  budget: int,
  reference: Sequence[float],
  key: types.PRNGKey,
  *,
  adaptive: bool,
) -> tuple[np.ndarray, np.ndarray]:
  """Fits a surrogate by two thirds of a budget, and checks its front."""
  checks = budget // 3
  samples = budget - checks
  unknowns = math.comb(size + 2, 2)
  if samples < unknowns + 2 * adaptive:
    return np.zeros((0, size)), np.zeros((0, 2))
  rounds: tuple[int, ...] = ()
  if adaptive:
    more = samples - max(unknowns, samples // 2)
    rounds = (more - more // 2, more // 2)
  front = search.map_front(
    evaluate,
    size,
    evaluations=samples - sum(rounds),
    adaptive=rounds,
    link='sigmoid',
    key=key,
  )
  chosen = _spread(front.losses, checks, reference)
  points = front.points[chosen]
  errors = evaluate(points)
  return (
    np.concatenate([front.samples, points]),
    np.concatenate([front.sampled, errors]),
  )


def _spread(
  losses: np.ndarray, count: int, reference: Sequence[float]
) -> list[int]:
  """Selects points of a predicted front, each of the largest added volume."""
  volume = lambda rows: search.hypervolume(losses[rows], reference=reference)
  chosen: list[int] = []
  left = list(range(len(losses)))
  while left and len(chosen) < count:
    chosen.append(max(left, key=lambda i: volume([*chosen, i])))
    left.remove(chosen[-1])
  return chosen


def predicted(
  evaluate: Evaluate, size: int, budget: int, key: types.PRNGKey
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the whole front of MAP, its predicted and its true errors.

  The true errors are not part of the budget: this is the claim of the method.
  """
  samples = max(budget - budget // 3, math.comb(size + 2, 2))
  front = search.map_front(
    evaluate, size, evaluations=samples, link='sigmoid', key=key
  )
  return front.losses, evaluate(front.points)


def nested(
  evaluate: Evaluate, size: int, budget: int, key: types.PRNGKey
) -> search.Nested:
  """Merges in pairs, with as many evaluations as a budget has."""
  each = (budget - size) // (size - 1) - 1
  return search.map_nested(
    evaluate, size, evaluations=each, link='sigmoid', key=key
  )
