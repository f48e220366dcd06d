"""The most valuable units that fit a budget: climb, round down, exchange."""

import functools

import numpy as np

from wsl.align._partial import merge_cost

_STARTS = 16  # greedy starts
_ROUNDED = 4  # optima that are rounded to whole units
_EXCHANGES = 20  # at most
_TINY = 1e-12  # share of the whole cost that counts as none


def counts(
  cost: merge_cost.Cost, weights: np.ndarray, sizes: np.ndarray, budget: float
) -> np.ndarray:
  """Returns how many units each group keeps separate.

  Args:
    cost: the cost of fractions.
    weights: what each whole group is worth, ``> 0``.
    sizes: how many units the groups have.
    budget: the greatest cost, in units of that of nothing separate.
  """
  # A rounding error must not cost a unit.
  limit = budget * cost(np.zeros(len(sizes))) * (1 + 1e-9)
  if not len(sizes) or cost(np.ones(len(sizes))) <= limit:
    return sizes
  starts = _starts(cost, weights, limit)
  tops = [_climb(cost, weights, limit, start) for start in starts]
  tops = sorted(tops, key=lambda r: float(-weights @ r))[:_ROUNDED]
  fill = functools.partial(_fill, cost, weights, sizes, limit)
  value = lambda counts: float(weights @ (counts / sizes))
  # Whole groups may round better than the optimum of their fractions.
  whole = (fill(_floor(cost, sizes, limit, r)) for r in (*tops, *starts))
  best = max(whole, key=value)
  for _ in range(_EXCHANGES):
    fewer = [best - _drop(best, g, k) for g in range(len(best)) for k in (1, 0)]
    other = max((fill(counts, best) for counts in fewer), key=value)
    if value(other) <= value(best) * (1 + 1e-12):
      break
    best = other
  return best


def _starts(
  cost: merge_cost.Cost, weights: np.ndarray, limit: float
) -> list[np.ndarray]:
  """Starts: all alike, and from one group on, what gains most for its cost."""
  n = len(weights)
  low, high = 0.0, 1.0
  for _ in range(40):
    middle = (low + high) / 2
    inside = cost(np.full(n, middle)) <= limit
    low, high = (middle, high) if inside else (low, middle)
  starts = [np.zeros(n), np.full(n, low)]
  has, tiny = cost.having(n), _TINY * cost.whole
  for first in np.argsort(-weights / np.maximum(cost.shared @ has, tiny))[
    :_STARTS
  ]:
    r, alive, nexts = np.zeros(n), cost.shared.copy(), np.asarray([first])
    while len(nexts):
      fits = cost(r) + alive @ has[:, nexts] <= limit
      nexts = nexts[fits]
      if len(nexts):
        rates = weights[nexts] / np.maximum(alive @ has[:, nexts], tiny)
        chosen = nexts[np.argmax(rates)]
        r[chosen], alive = 1.0, alive * ~has[:, chosen]
        nexts = np.flatnonzero(r == 0)
    starts.append(r)
  return starts


def _climb(
  cost: merge_cost.Cost, weights: np.ndarray, limit: float, start: np.ndarray
) -> np.ndarray:
  """Returns a local optimum near a start, the start if that is no better."""
  from scipy import optimize

  result = optimize.minimize(
    lambda r: -weights @ r,
    start,
    jac=lambda r: -weights,
    bounds=[(0.0, 1.0)] * len(start),
    constraints={
      'type': 'ineq',
      'fun': lambda r: (limit - cost(r)) / limit,
      'jac': lambda r: -cost.gradient(r) / limit,
    },
    method='SLSQP',
    options={'maxiter': 200},
  )
  found = np.clip(np.nan_to_num(result.x), 0, 1)
  better = weights @ found > weights @ start and cost(found) <= limit * 1.001
  return found if better else start


def _floor(
  cost: merge_cost.Cost, sizes: np.ndarray, limit: float, r: np.ndarray
) -> np.ndarray:
  """Rounds fractions down to units that fit."""
  counts = np.floor(r * sizes + 1e-6).astype(int)
  while cost(counts / sizes) > limit:  # By the solver's tolerance.
    counts = np.maximum(counts - 1, 0)
  return counts


def _drop(counts: np.ndarray, g: int, k: int) -> np.ndarray:
  """Returns at most k units of a group, or all of them where k is 0."""
  dropped = np.zeros_like(counts)
  dropped[g] = min(counts[g], k) if k else counts[g]
  return dropped


def _fill(
  cost: merge_cost.Cost,
  weights: np.ndarray,
  sizes: np.ndarray,
  limit: float,
  counts: np.ndarray,
  below: np.ndarray | None = None,
) -> np.ndarray:
  """Adds units while they fit, those first that are most worth their cost.

  Args:
    cost: the cost of fractions.
    weights: what a whole group is worth.
    sizes: how many units the groups have.
    limit: the greatest cost.
    counts: where to start.
    below: counts that a group which lost units must not reach again before the
      others have had their turn; ``None`` for no such group.

  Returns:
    Counts to which no unit can be added.
  """
  one = np.eye(len(sizes), dtype=int)
  last = np.zeros(len(sizes), bool) if below is None else counts < below
  fits = lambda g: (
    counts[g] < sizes[g] and cost((counts + one[g]) / sizes) <= limit
  )
  while True:
    slopes = cost.gradient(counts / sizes)
    rates = weights / np.maximum(slopes, _TINY * cost.whole)
    order = np.lexsort((-rates, last))
    more = next((g for g in order if fits(g)), None)
    if more is None:
      return counts
    while fits(more):
      counts = counts + one[more]
