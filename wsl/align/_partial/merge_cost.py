"""The cost of a partial merge, as a function of the separate fractions."""

from collections.abc import Mapping
import itertools
import math
from typing import NamedTuple

import numpy as np

from wsl import tree, types
from wsl.align import _symmetry
from wsl.align._partial import entry_sources, separate_units


class Cost(NamedTuple):
  r"""The cost :math:`C(r) = c - \sum_k s_k \prod_{g \in k} (1 - r_g)`.

  Attributes:
    whole: c, the cost of both models side by side.
    shared: s, the cost that is saved where all is merged, ``[K]``.
    groups: the groups of each product, ``[K, M]``; -1 fills up.
  """

  whole: float
  shared: np.ndarray
  groups: np.ndarray

  def __call__(self, r: np.ndarray) -> float:
    """Returns the cost."""
    return float(self.whole - self.shared @ self._merged(r).prod(1))

  def gradient(self, r: np.ndarray) -> np.ndarray:
    """Returns the derivative by each fraction."""
    merged, result = self._merged(r), np.zeros(len(r) + 1)
    for i in range(merged.shape[1]):
      others = np.delete(merged, i, axis=1).prod(1)
      np.add.at(result, self.groups[:, i], self.shared * others)
    return result[:-1]

  def having(self, count: int) -> np.ndarray:
    """Returns which products hold which group, ``[K, groups]``."""
    return (self.groups[:, :, None] == np.arange(count)).any(1)

  def _merged(self, r: np.ndarray) -> np.ndarray:
    return np.append(1 - r, 1.0)[self.groups]


def per_entry(
  params: types.Params, grams: types.Tree | None
) -> dict[str, float]:
  """Returns what each entry of a leaf costs; leaves that cost nothing lack."""
  if grams is None:
    return dict.fromkeys(tree.named(params), 1.0)
  is_gram = lambda x: isinstance(x, types.Gram)
  by_name = tree.named(grams, is_leaf=is_gram)
  # A grouped convolution meets each entry once for each row of its group.
  return {name: float(np.mean(gram.count)) for name, gram in by_name.items()}


def of_model(
  symmetry: _symmetry.Symmetry,
  names: list[str],
  split: entry_sources.Split,
  per_entry: Mapping[str, float],
) -> Cost:
  """Returns the cost of a model as a function of some groups' fractions.

  Args:
    symmetry: the symmetry of A.
    names: the groups; all others are merged.
    split: what is known of the outputs.
    per_entry: what an entry of a leaf costs, by the leaf's name.
  """
  of_b = separate_units.of_b(symmetry, split)
  place = {group: i for i, group in enumerate(names)}
  whole, terms = 0.0, dict[tuple[int, ...], float]()
  for name, cost in per_entry.items():
    if name not in symmetry.leaf:
      continue
    for side in (symmetry, of_b):
      whole += cost * math.prod(
        sum(map(_symmetry.width, axis)) for axis in side.plan(name)
      )
    for segments in itertools.product(*symmetry.plan(name)):
      factors = [factor for segment in segments for factor in segment]
      if not any(factor.name in split.outputs for factor in factors):
        held = sorted(place[f.name] for f in factors if f.name in place)
        size = math.prod(factor.size for factor in factors)
        terms[tuple(held)] = terms.get(tuple(held), 0.0) + cost * size
  longest = max(map(len, terms), default=0)
  groups = [[*held, *[-1] * (longest - len(held))] for held in terms]
  return Cost(
    whole,
    np.asarray([*terms.values()], np.float64),
    np.asarray(groups, int).reshape(len(terms), longest),
  )
