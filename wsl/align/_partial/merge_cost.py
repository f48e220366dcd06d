r"""The cost of a partial merge as a function of the separate fractions.

A block k of a leaf has :math:`|A_k|` entries in A and :math:`|B_k|` in B. The
merged model has all of them, except that entries between merged units are
shared: there are :math:`\prod_{g \in k} n_g (1 - r_g)` of these, stored once
instead of twice. Entries between separate units of A and of B are zero and cost
nothing. So the cost is multilinear in the fractions.
"""

from collections.abc import Mapping, Sequence
import itertools
import math
from typing import NamedTuple

import numpy as np

from wsl import tree, types
from wsl.align import _symmetry
from wsl.align._partial import entry_sources, separate_units


def partial_cost(
  a: types.Params,
  b: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  separate: float | Mapping[str, float],
  grams: types.Tree | None = None,
  outputs: Sequence[str] = (),
) -> float:
  r"""Returns the cost of a partial merge, relative to that of one model.

  .. math:: \frac{C(r)}{C(0)}, \qquad C(r) = \sum_k c_k \Big(|A_k| + |B_k| -
    \prod_{g \in k} n_g (1 - r_g)\Big)

  This is the quantity that ``widths`` bounds by its budget: 1 if all units are
  merged, 2 if all are separate (less if outputs are pinned and shared).

  Args:
    a: a model.
    b: a model aligned to a.
    symmetry: the symmetry of ``a``.
    separate: the fraction of its units that each group keeps separate, 0 .. 1,
      as in ``pleas``; rounded down to whole units.
    grams: as in ``widths``: the cost of an entry of a map is its number of
      rows; ``None`` counts parameters.
    outputs: as in ``pleas``.

  Returns:
    The cost, at least 1.

  Raises:
    ValueError: if a fraction is out of range, or a name or a model does not
      fit.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> x, h = align.Factor('x', 3, 'an input'), align.Factor('h', 8)
    >>> symmetry = align.Symmetry((x, h), (('w', ((('x',),), (('h',),))),))
    >>> model = {'w': jnp.ones((3, 8))}
    >>> align.partial_cost(
    ...   model, model, symmetry=symmetry, separate={'h': 0.25}
    ... )
    1.25

  Reference:
    Nasery et al., "PLeaS: Merging Models with Permutations and Least Squares",
    2024, arXiv:2407.02447 (its budget of operations).
  """
  counts = separate_units.count_units(
    a, b, symmetry, separate, outputs, 'partial_cost'
  )
  names = [group.name for group in separate_units.movable(symmetry)]
  cost = model_cost(symmetry, names, counts, entry_costs(a, grams))
  r = [counts.separate.get(n, 0) / symmetry.factor[n].size for n in names]
  merged = cost(np.zeros(len(names)))
  return cost(np.asarray(r, np.float64)) / merged if merged else 1.0


class Cost(NamedTuple):
  r"""The cost :math:`C(r) = c - \sum_k s_k \prod_{g \in k} (1 - r_g)`.

  Attributes:
    whole: c, the cost of both models without shared entries.
    shared: s, the cost saved by each block if all is merged, ``[K]``.
    groups: the groups of each product, ``[K, M]``, padded by -1.
  """

  whole: float
  shared: np.ndarray
  groups: np.ndarray

  def __call__(self, r: np.ndarray) -> float:
    """Returns the cost."""
    return float(self.whole - self.shared @ self._merged_shares(r).prod(1))

  def gradient(self, r: np.ndarray) -> np.ndarray:
    """Returns the derivative with respect to each fraction."""
    # dC / dr_g = sum_k s_k prod_{h in k, h != g} (1 - r_h); a group that occurs
    # twice in k contributes twice. Padding is collected in an extra entry.
    merged, result = self._merged_shares(r), np.zeros(len(r) + 1)
    for i in range(merged.shape[1]):
      others = np.delete(merged, i, axis=1).prod(1)
      np.add.at(result, self.groups[:, i], self.shared * others)
    return result[:-1]

  def membership(self, count: int) -> np.ndarray:
    """Returns a mask of the groups in each product, ``[K, groups]``."""
    return (self.groups[:, :, None] == np.arange(count)).any(1)

  def _merged_shares(self, r: np.ndarray) -> np.ndarray:
    """Returns 1 - r for the groups of each product; 1 for padding."""
    return np.append(1 - r, 1.0)[self.groups]


def entry_costs(
  params: types.Params, grams: types.Tree | None
) -> dict[str, float]:
  """Returns the cost per entry of each leaf; zero-cost leaves are omitted."""
  if grams is None:
    return dict.fromkeys(tree.named(params), 1.0)
  is_gram = lambda x: isinstance(x, types.Gram)
  by_name = tree.named(grams, is_leaf=is_gram)
  # In a grouped convolution an entry is used once for each row of its group.
  return {name: float(np.mean(gram.count)) for name, gram in by_name.items()}


def model_cost(
  symmetry: _symmetry.Symmetry,
  names: list[str],
  counts: entry_sources.UnitCounts,
  costs: Mapping[str, float],
) -> Cost:
  """Returns the cost of a model as a function of some groups' fractions.

  Args:
    symmetry: the symmetry of A.
    names: the groups; all others are merged.
    counts: the sizes of outputs in B; its separate units are not used.
    costs: the cost of an entry of each leaf, by the leaf's name.
  """
  of_b = separate_units.symmetry_of_b(symmetry, counts)
  place = {group: i for i, group in enumerate(names)}
  whole, terms = 0.0, dict[tuple[int, ...], float]()
  for name, entry_cost in costs.items():
    if name not in symmetry.leaf:
      continue
    for model in (symmetry, of_b):
      whole += entry_cost * math.prod(
        sum(map(_symmetry.width, axis)) for axis in model.plan(name)
      )
    # Separate outputs are never shared.
    for segments in itertools.product(*symmetry.plan(name)):
      factors = [factor for segment in segments for factor in segment]
      if not any(factor.name in counts.outputs for factor in factors):
        members = sorted(place[f.name] for f in factors if f.name in place)
        size = math.prod(factor.size for factor in factors)
        terms[tuple(members)] = (
          terms.get(tuple(members), 0.0) + entry_cost * size
        )
  longest = max(map(len, terms), default=0)
  groups = [[*key, *[-1] * (longest - len(key))] for key in terms]
  return Cost(
    whole,
    np.asarray([*terms.values()], np.float64),
    np.asarray(groups, int).reshape(len(terms), longest),
  )
