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
