"""How many units each group may keep separate under a budget."""

from collections.abc import Mapping, Sequence
import functools
import math

import numpy as np

from wsl import tree, types
from wsl.align import _cost, _split, _symmetry, _unit_gains

_STARTS = 16  # greedy starts
_ROUNDED = 4  # optima that are rounded to whole units
_EXCHANGES = 20  # at most
_TINY = 1e-12  # share of the whole cost that counts as none


def widths(
  a: types.Params,
  b: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  budget: float,
  weights: Mapping[str, float] | None = None,
  grams: types.Tree | None = None,
  outputs: Sequence[str] = (),
) -> dict[str, float]:
  r"""Chooses the fraction of units that each group keeps separate.

  .. math:: \max_r \sum_g w_g r_g \quad \text{s.t.} \quad
    C(r) \leq \text{budget} \cdot C(0), \quad 0 \leq r_g \leq 1, \qquad
    C(r) = \sum_k c_k \Big( |A_k| + |B_k| -
      \prod_{g \in k} n_g (1 - r_g) \Big)

  An entry of a leaf costs once where it is merged and twice where it is not,
  and no unit of A alone feeds one of B alone: of a weight between two groups
  the cost is :math:`c\, n_i n_j [(1 + r_i)(1 + r_j) - 2 r_i r_j]`. Blocks of
  zeros do not count, so the budget of two whole networks is 2; a dense
  product of the wider axes also computes the zeros.

  The constraint is not convex. Sequential quadratic programming runs from
  several starts, and what rounding down to whole units leaves of the budget is
  given to the groups by weight and cost.

  Args:
    a: a model.
    b: another one, aligned to it.
    symmetry: the symmetry of ``a``.
    budget: the cost, in units of that of the model with nothing separate;
      at least 1. From 2 on everything may be separate.
    weights: w_g, what a group gains from being separate, by name; 0 where not
      given, and at or below 0 it is merged. ``None`` for ``mismatch`` of the
      leaves that hold none of ``outputs``; measured ones: ``width_weights``.
    grams: ``stats.joint_gram(...)`` or ``stats.gram(...)``: an entry of a map
      costs its number of rows (the positions of a convolution), other leaves
      cost nothing. ``None``: each entry of a leaf costs 1, and the budget is
      one of parameters.
    outputs: as in ``pleas``.

  Returns:
    For each group that may keep units separate the fraction, a multiple of one
    unit: ``separate`` of ``pleas``.

  Raises:
    ValueError: if the budget is below 1, or a name or a model does not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> h, x = align.Factor('h', 4), align.Factor('x', 5, 'an input')
    >>> symmetry = align.Symmetry((h, x), (('w', ((('x',),), (('h',),))),))
    >>> a, b = {'w': jnp.ones((5, 4))}, {'w': -jnp.ones((5, 4))}
    >>> align.widths(a, b, symmetry=symmetry, budget=1.5)
    {'h': 0.5}

  Reference:
    Nasery et al., "PLeaS: Merging Models with Permutations and Least Squares",
    2024, arXiv:2407.02447.

  Differs from the official code, which needs a commercial solver and without
  one draws the fractions at random.
  """
  if not budget >= 1:
    raise ValueError(
      f'widths: budget={budget}, expected at least 1, the cost of one model'
    )
  split = _split.split(a, b, symmetry, 0.0, outputs, 'widths')
  if weights is None:
    leaves = _unit_gains.compared(symmetry, outputs)
    weights = _unit_gains.mismatch(a, b, symmetry=symmetry, leaves=leaves)
  sizes = {g.name: g.size for g in _split.movable(symmetry)}
  for name, weight in weights.items():
    if name not in symmetry.factor:
      raise ValueError(
        f"widths: the symmetry has no group '{name}', which has a weight"
        f'{tree.nearest(name, list(sizes))}'
      )
    if not math.isfinite(weight):
      raise ValueError(f"widths: the weight of group '{name}' is {weight}")
  names = [name for name in sizes if weights.get(name, 0) > 0]
  cost = _cost.of_model(symmetry, names, split, _cost.per_entry(a, grams))
  counts = _counts(
    cost,
    np.asarray([weights[name] for name in names], np.float64),
    np.asarray([sizes[name] for name in names]),
    budget,
  )
  kept = dict(zip(names, counts.tolist()))
  return {name: kept.get(name, 0) / n for name, n in sizes.items()}


def width_weights(
  separate: Mapping[str, float],
  merged: Mapping[str, float],
  *,
  all_merged: float,
  all_separate: float,
  budget: float,
) -> dict[str, float]:
  r"""Returns weights of groups from measured accuracies.

  .. math:: w_g = (2 - \text{budget})\,(R^1_g - R_{merged})
    - (\text{budget} - 1)\,(R^0_g - R_{separate})

  What a group gains when it alone is kept separate counts where the budget is
  small, what it loses when it alone is merged where it is large.

  Args:
    separate: R^1, by group: the accuracy of ``pleas`` with only this group
      separate, ``separate={group: 1.0}``.
    merged: R^0, by group: that with only this group merged.
    all_merged: the accuracy with every group merged.
    all_separate: that with every group separate.
    budget: the budget that the weights are for, 1 .. 2.

  Returns:
    A weight for each group.

  Raises:
    ValueError: if the groups differ, or the budget is out of range.

  Example:
    >>> weights = width_weights({'g': 0.75}, {'g': 0.5}, all_merged=0.5,
    ...                         all_separate=1.0, budget=1.5)
    >>> weights
    {'g': 0.375}

  Reference: the official code of Nasery et al., "PLeaS: Merging Models with
  Permutations and Least Squares", 2024, arXiv:2407.02447.
  """
  if not 1 <= budget <= 2:
    raise ValueError(f'width_weights: budget={budget}, expected 1 .. 2')
  for name in {*separate} ^ {*merged}:
    raise ValueError(f"width_weights: group '{name}' is in one mapping only")
  return {
    name: (2 - budget) * (separate[name] - all_merged)
    - (budget - 1) * (merged[name] - all_separate)
    for name in separate
  }


def _counts(
  cost: _cost.Cost, weights: np.ndarray, sizes: np.ndarray, budget: float
) -> np.ndarray:
  """Returns how many units to keep separate."""
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
  cost: _cost.Cost, weights: np.ndarray, limit: float
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
  cost: _cost.Cost, weights: np.ndarray, limit: float, start: np.ndarray
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
  cost: _cost.Cost, sizes: np.ndarray, limit: float, r: np.ndarray
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
  cost: _cost.Cost,
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
