"""Assignment of dependent groups: outer gains include inner assignments."""

from collections.abc import Mapping

import numpy as np

from wsl.align import _assignment, _permutation, _soft, _symmetry


def assign(
  gains: Mapping[str, np.ndarray],
  *,
  symmetry: _symmetry.Symmetry,
  solver: _assignment.Solver,
) -> _permutation.Permutation:
  r"""Finds the permutation of maximum gain, inner groups first.

  .. math:: S[u, o] \leftarrow S[u, o] + \sum_{\text{inner}} \max_\tau
    \sum_i G[u, o, i, \tau(i)]

  The gain of a pair (u, o) of outer indices includes that of its best inner
  assignments. This is exact if the outer groups of each group are nested in a
  chain. If they are independent, each receives the mean over the old indices of
  the others, which are not matched yet.

  Args:
    gains: for some groups ``[*outer, *free outer, n, n]``; a group that has
      none, itself or through a dependent group, keeps its order.
    symmetry: the symmetry of the models.
    solver: an assignment solver.

  Returns:
    The permutation, for each group ``[*outer, n]``.
  """
  total = dict(gains)
  indices: dict[str, np.ndarray] = {}
  for group in reversed(symmetry.groups):  # inner groups first
    shape = _soft.shape(group, symmetry)
    if group.name not in total:
      identity = np.arange(group.size, dtype=np.int32)
      indices[group.name] = np.broadcast_to(identity, shape[:-1])
      continue
    gain = total[group.name]
    index = np.asarray(solver(gain))
    indices[group.name] = index
    value = np.take_along_axis(gain, index[..., None], -1).sum((-2, -1))
    for outer in _direct_outer(group, symmetry):
      outer_gain = _outer_gain(value, group, outer, symmetry)
      total[outer.name] = total.get(outer.name, np.zeros(())) + outer_gain
  return _soft.descend(indices, symmetry=symmetry)


def _direct_outer(
  group: _symmetry.Factor, symmetry: _symmetry.Symmetry
) -> list[_symmetry.Factor]:
  """Returns the innermost of the free outer groups of a group."""
  free = [symmetry.factor[name] for name in _soft.free_outer(group, symmetry)]
  return [f for f in free if not any(f.name in other.outer for other in free)]


def _outer_axes(
  group: _symmetry.Factor, symmetry: _symmetry.Symmetry
) -> tuple[list[str], list[str]]:
  """Labels the new and the old (primed) outer indices of a group's gains."""
  free = _soft.free_outer(group, symmetry)
  return list(group.outer), [name + "'" for name in free]


def _outer_gain(
  value: np.ndarray,
  group: _symmetry.Factor,
  outer: _symmetry.Factor,
  symmetry: _symmetry.Symmetry,
) -> np.ndarray:
  """Reduces values ``[*outer, *free outer]`` to gains of one outer group.

  Sums over new indices on which the outer group does not depend; averages over
  old ones.
  """
  new, old = _outer_axes(group, symmetry)
  kept_new, kept_old = _outer_axes(outer, symmetry)
  kept = [*kept_new, *kept_old, outer.name, outer.name + "'"]
  labels = [*new, *old]
  for name in [name for name in labels if name not in kept]:
    axis = labels.index(name)
    labels.pop(axis)
    value = value.mean(axis) if name in old else value.sum(axis)
  return value.transpose([labels.index(name) for name in kept])
