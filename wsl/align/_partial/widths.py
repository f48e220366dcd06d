"""The fraction of separate units of each group under a budget."""

from collections.abc import Mapping, Sequence
import math

import numpy as np

from wsl import tree, types
from wsl.align import _symmetry
from wsl.align._partial import (
  budget_search,
  merge_cost,
  separate_units,
  unit_gains,
)


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

  An entry of a leaf costs c if it is merged and 2 c if it is separate, and no
  weights join separate units of A and of B: a map between two groups costs
  :math:`c\, n_i n_j [(1 + r_i)(1 + r_j) - 2 r_i r_j]`. Blocks of zeros are not
  counted, so the budget of two whole networks is 2, although a dense product of
  the wider axes also computes the zeros.

  The constraint is not convex. Sequential quadratic programming runs from
  several starts, fractions are rounded down to whole units, and the remaining
  budget is filled greedily by weight per cost.

  Args:
    a: a model.
    b: a model aligned to a.
    symmetry: the symmetry of ``a``.
    budget: the largest cost, in units of the cost with nothing separate, at
      least 1. From 2 on everything may be separate.
    weights: w_g, the value of keeping a group separate, by name; 0 where not
      given, and groups of weight at most 0 are merged. ``None`` for
      ``mismatch`` of the leaves without ``outputs``; see
      ``width_weights`` for measured ones.
    grams: ``stats.joint_gram(...)`` or ``stats.gram(...)``: the cost c
      of an entry of a map is its number of rows (the positions of a
      convolution), and other leaves cost nothing. ``None``: c = 1 for every
      leaf, a budget of parameters.
    outputs: as in ``pleas``.

  Returns:
    The fraction of each group that may keep units separate, a whole number of
    units: the argument ``separate`` of ``pleas``.

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

  Differs from the official code, which needs a commercial solver and draws the
  fractions at random without one.
  """
  tree.check_scalars('widths', budget=budget)
  if not budget >= 1:
    raise ValueError(
      f'widths: budget={budget}, expected at least 1, the cost of one model'
    )
  fixed = separate_units.count_units(a, b, symmetry, 0.0, outputs, 'widths')
  if weights is None:
    leaves = unit_gains.comparable_leaves(symmetry, outputs)
    weights = unit_gains.mismatch(a, b, symmetry=symmetry, leaves=leaves)
  sizes = {g.name: g.size for g in separate_units.movable(symmetry)}
  for name, weight in weights.items():
    if name not in symmetry.factor:
      raise ValueError(
        f"widths: the symmetry has no group '{name}', which has a weight"
        f'{tree.nearest(name, list(sizes))}'
      )
    if not math.isfinite(weight):
      raise ValueError(f"widths: the weight of group '{name}' is {weight}")
  names = [name for name in sizes if weights.get(name, 0) > 0]
  cost = merge_cost.model_cost(
    symmetry, names, fixed, merge_cost.entry_costs(a, grams)
  )
  counts = budget_search.search_counts(
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

  At small budgets the weight is the gain from keeping only this group separate,
  at large budgets the loss from merging only this group.

  Args:
    separate: R^1, by group: the accuracy of ``pleas`` with only this group
      separate, ``separate={group: 1.0}``.
    merged: R^0, by group: the accuracy with only this group merged.
    all_merged: the accuracy with every group merged.
    all_separate: the accuracy with every group separate.
    budget: the budget of ``widths``, 1 .. 2.

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
  tree.check_scalars(
    'width_weights',
    all_merged=all_merged,
    all_separate=all_separate,
    budget=budget,
  )
  if not 1 <= budget <= 2:
    raise ValueError(f'width_weights: budget={budget}, expected 1 .. 2')
  for name in {*separate} ^ {*merged}:
    raise ValueError(f"width_weights: group '{name}' is in one mapping only")
  return {
    name: (2 - budget) * (separate[name] - all_merged)
    - (budget - 1) * (merged[name] - all_separate)
    for name in separate
  }
