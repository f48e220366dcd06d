"""Assignment of dependent groups: outer gains include inner assignments."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from wsl.align import _soft

Names: TypeAlias = tuple[str, ...]


def assign(
  gains: Mapping[str, np.ndarray],
  *,
  start: Mapping[str, np.ndarray],
  outer_of: Mapping[str, Names],
  solvers: Mapping[str, Callable[[Any], Any]],
) -> dict[str, np.ndarray]:
  r"""Finds the tables of maximum gain, inner groups first.

  .. math:: S[u, o] \leftarrow S[u, o] + \sum_{\text{inner}} \max_\tau
    \sum_{ij} G[u, o, i, j]\, \tau_{ij}

  The gain of a pair (u, o) of outer indices includes that of its best inner
  tables, permutations or orthogonal maps. This is exact if the outer groups of
  each group are nested in a chain. If they are independent, each receives the
  mean over the old indices of the others, which are not matched yet.

  Args:
    gains: for some groups ``[*outer, *free outer, n, n]``; a group that has
      none, itself or through a dependent group, keeps its table.
    start: for each group the identity, ``[*outer, n]`` indices or ``[*outer, n,
      n]`` matrices; outer groups first.
    outer_of: for each group the factors on which its table depends; those that
      are groups themselves are free.
    solvers: for each group a function from gains to its table.

  Returns:
    For each group its table, of the shape of that in ``start``.
  """
  total = dict(gains)
  found: dict[str, np.ndarray] = {}
  for name in reversed([*start]):  # inner groups first
    if name not in total:
      found[name] = _kept(start[name], name, outer_of)
      continue
    gain = total[name]
    table = np.asarray(solvers[name](gain))
    found[name] = table
    if table.ndim == gain.ndim:
      value = (gain * table).sum((-2, -1))
    else:
      value = np.take_along_axis(gain, table[..., None], -1).sum((-2, -1))
    for outer in _direct_outer(name, outer_of):
      outer_gain = _outer_gain(value, name, outer, outer_of)
      total[outer] = total.get(outer, np.zeros(())) + outer_gain
  return _soft.descend(found, outer_of={name: outer_of[name] for name in start})


def free_outer(name: str, outer_of: Mapping[str, Names]) -> Names:
  """Returns the outer factors of a group that are groups themselves."""
  return tuple(o for o in outer_of[name] if o in outer_of)


def _kept(
  table: np.ndarray, name: str, outer_of: Mapping[str, Names]
) -> np.ndarray:
  """Repeats the table of a group for all old indices of its free outer ones."""
  outer = outer_of[name]
  sizes = dict(zip(outer, table.shape))
  free = free_outer(name, outer_of)
  shape = (*table.shape[: len(outer)], *(sizes[o] for o in free))
  one = table[(0,) * len(outer)]
  return np.broadcast_to(one, (*shape, *one.shape))


def _direct_outer(name: str, outer_of: Mapping[str, Names]) -> list[str]:
  """Returns the innermost of the free outer groups of a group."""
  free = free_outer(name, outer_of)
  return [o for o in free if not any(o in outer_of[other] for other in free)]


def _outer_axes(
  name: str, outer_of: Mapping[str, Names]
) -> tuple[list[str], list[str]]:
  """Labels the new and the old (primed) outer indices of a group's gains."""
  free = free_outer(name, outer_of)
  return list(outer_of[name]), [o + "'" for o in free]


def _outer_gain(
  value: np.ndarray, name: str, outer: str, outer_of: Mapping[str, Names]
) -> np.ndarray:
  """Reduces values ``[*outer, *free outer]`` to gains of one outer group.

  Sums over new indices on which the outer group does not depend; averages over
  old ones.
  """
  new, old = _outer_axes(name, outer_of)
  kept_new, kept_old = _outer_axes(outer, outer_of)
  kept = [*kept_new, *kept_old, outer, outer + "'"]
  labels = [*new, *old]
  for label in [label for label in labels if label not in kept]:
    axis = labels.index(label)
    labels.pop(axis)
    value = value.mean(axis) if label in old else value.sum(axis)
  return value.transpose([labels.index(label) for label in kept])
