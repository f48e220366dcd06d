r"""The most valuable separate units that fit a budget.

.. math:: \max_r w^\top r \quad \text{s.t.} \quad C(r) \le L, \quad
  r_g \in \{0, 1 / n_g, \dots, 1\}

The multilinear cost C is not convex, so the search is a heuristic in three
steps: sequential quadratic programming over real fractions from several starts,
rounding down with a greedy fill of the remaining budget, and exchanges, where a
group loses units and the budget is filled again.
"""

import functools

import numpy as np

from wsl.align._partial import merge_cost

_GREEDY_STARTS = 16
_ROUNDED_OPTIMA = 4  # the best ones are rounded to whole units
_MAX_EXCHANGES = 20
_TINY = 1e-12  # a cost below this share of the whole cost counts as zero


def search_counts(
  cost: merge_cost.Cost, weights: np.ndarray, sizes: np.ndarray, budget: float
) -> np.ndarray:
  """Returns the number of separate units of each group.

  Args:
    cost: the cost of fractions.
    weights: the value of each whole group, ``> 0``.
    sizes: the number of units of each group.
    budget: the largest cost, in units of the cost with nothing separate.
  """
  # The margin keeps a rounding error from excluding a unit.
  limit = budget * cost(np.zeros(len(sizes))) * (1 + 1e-9)
  if not len(sizes) or cost(np.ones(len(sizes))) <= limit:
    return sizes
  starts = _initial_fractions(cost, weights, limit)
  optima = [_local_optimum(cost, weights, limit, start) for start in starts]
  optima = sorted(optima, key=lambda r: float(-weights @ r))[:_ROUNDED_OPTIMA]
  fill = functools.partial(_fill_budget, cost, weights, sizes, limit)
  value = lambda counts: float(weights @ (counts / sizes))
  # Starts of whole groups can beat the optimum of fractions after rounding.
  candidates = (*optima, *starts)
  rounded = (fill(_round_down(cost, sizes, limit, r)) for r in candidates)
  best = max(rounded, key=value)
  for _ in range(_MAX_EXCHANGES):
    # Each group in turn loses one unit, or all of its units.
    fewer = [
      counts
      for g in np.eye(len(best), dtype=int)
      for counts in (best - np.minimum(best, g), best * (1 - g))
    ]
    other = max((fill(counts, best) for counts in fewer), key=value)
    if value(other) <= value(best) * (1 + 1e-12):
      break
    best = other
  return best


def _initial_fractions(
  cost: merge_cost.Cost, weights: np.ndarray, limit: float
) -> list[np.ndarray]:
  """Returns starts: equal fractions, and greedy sets of whole groups.

  Equal fractions use up the budget, by bisection. A greedy start takes one of
  the groups with the highest value per cost first, then adds whole groups by
  the ratio of their value to the cost that they add, while they fit.
  """
  n = len(weights)
  low, high = 0.0, 1.0
  for _ in range(40):
    middle = (low + high) / 2
    inside = cost(np.full(n, middle)) <= limit
    low, high = (middle, high) if inside else (low, middle)
  starts = [np.zeros(n), np.full(n, low)]
  member, tiny = cost.membership(n), _TINY * cost.whole
  for first in np.argsort(-weights / np.maximum(cost.shared @ member, tiny))[
    :_GREEDY_STARTS
  ]:
    # A block saves its cost until one of its groups becomes separate.
    r, saved, nexts = np.zeros(n), cost.shared.copy(), np.asarray([first])
    while len(nexts):
      fits = cost(r) + saved @ member[:, nexts] <= limit
      nexts = nexts[fits]
      if len(nexts):
        rates = weights[nexts] / np.maximum(saved @ member[:, nexts], tiny)
        chosen = nexts[np.argmax(rates)]
        r[chosen], saved = 1.0, saved * ~member[:, chosen]
        nexts = np.flatnonzero(r == 0)
    starts.append(r)
  return starts


def _local_optimum(
  cost: merge_cost.Cost, weights: np.ndarray, limit: float, start: np.ndarray
) -> np.ndarray:
  """Returns a local optimum from a start, or the start if it is better."""
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


def _round_down(
  cost: merge_cost.Cost, sizes: np.ndarray, limit: float, r: np.ndarray
) -> np.ndarray:
  """Rounds fractions down to whole units that fit the limit."""
  counts = np.floor(r * sizes + 1e-6).astype(int)
  # SLSQP satisfies the constraint up to its tolerance only.
  while cost(counts / sizes) > limit:
    counts = np.maximum(counts - 1, 0)
  return counts


def _fill_budget(
  cost: merge_cost.Cost,
  weights: np.ndarray,
  sizes: np.ndarray,
  limit: float,
  counts: np.ndarray,
  below: np.ndarray | None = None,
) -> np.ndarray:
  """Adds units while they fit, by value per marginal cost.

  Args:
    cost: the cost of fractions.
    weights: the value of each whole group.
    sizes: the number of units of each group.
    limit: the largest cost.
    counts: the units to start from.
    below: counts before an exchange. Groups with fewer units now are filled
      after all others; ``None`` for no exchange.

  Returns:
    Counts to which no further unit can be added.
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
