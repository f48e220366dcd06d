"""Blocks of a model, with axes named by the maps of a compact gauge.

Matching sees four kinds of groups. A permutation has a table of indices, and
each orthogonal map a table of matrices: rotations, phases (of the plane of a
pair), and signs, which are orthogonal maps of one dimension. An axis on which a
rotation acts has its name in place of the factor's: permutations are rotations.
A sign adds an axis of size 1, which depends on the factor as the units of a
head depend on the head.
"""

from collections.abc import Callable, Collection
import dataclasses
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from wsl.align import _symmetry
from wsl.align._gauges import elements, procrustes

Names: TypeAlias = tuple[str, ...]
Tables: TypeAlias = dict[str, np.ndarray]
_MATRICES = ('rotation', 'linear', 'phase')


class Group(NamedTuple):
  """A group to match.

  Attributes:
    name: of the factor, or of the action.
    shape: of its table of indices, ``[*outer sizes, size]``.
    outer: the axes on which its table depends, outermost first.
    kind: ``'permutation'``, or that of the action.
    ones: whether its matrices fix the vector of ones.
  """

  name: str
  shape: tuple[int, ...]
  outer: Names
  kind: str = 'permutation'
  ones: bool = False


@dataclasses.dataclass(frozen=True)
class View:
  """The groups of some kinds of a symmetry.

  Attributes:
    symmetry: the symmetry, with the actions of these kinds only.
    groups: those to match; outer ones first.
  """

  symmetry: _symmetry.Symmetry
  groups: tuple[Group, ...]

  @property
  def outer_of(self) -> dict[str, Names]:
    """The outer axes of each group."""
    return {group.name: group.outer for group in self.groups}

  def identity(self) -> Tables:
    """Returns the tables of the identity."""
    found = {}
    for group in self.groups:
      n = group.shape[-1]
      matrix = group.kind != 'permutation'
      start = np.eye(n) if matrix else np.arange(n, dtype=np.int32)
      shape = (*group.shape, n) if matrix else group.shape
      found[group.name] = np.broadcast_to(start, shape)
    return found

  def solvers(
    self, assign: Callable[[Any], Any]
  ) -> dict[str, Callable[[Any], Any]]:
    """Returns for each group the solver of its tables from gains."""
    return {
      group.name: assign
      if group.kind == 'permutation'
      else procrustes.phase
      if group.kind == 'phase'
      else procrustes.rotation_fixing_ones
      if group.ones
      else procrustes.rotation
      for group in self.groups
    }

  def names(self, leaf: str) -> list[Names]:
    """Returns the names of the axes of each block of a leaf."""
    symmetry = self.symmetry
    plan = symmetry.plan(leaf)
    acts = elements.acts_of(symmetry, leaf, symmetry.action)
    found = []
    for k, factors in enumerate(elements.factors_of(plan)):
      names = [factor.name for factor in factors]
      signs = []
      for act in acts:
        if act.block == k and act.kind in _MATRICES:
          names[act.dim] = act.name
        elif act.block == k and act.kind == 'sign' and act.power % 2:
          signs.append(act)
      kept = [a.name for a in signs if names[a.dim] == factors[a.dim].name]
      found.append((*names, *kept))
    return found

  def element(self, tables: Tables) -> Tables:
    """Returns the public element, permutations and actions, of some tables."""
    found = {}
    for group in self.groups:
      table = np.asarray(tables[group.name])
      if group.kind == 'sign':
        table = table[..., 0, 0]
      elif group.kind == 'phase':
        table = table[..., :, 0]
      elif group.kind in _MATRICES:
        # Elements permute first: R P x = M x, so R = M P^T, a gather of
        # columns. The permutation moves only axes without this action.
        factor = self.symmetry.action[group.name].factor
        if factor in tables:
          order = tables[factor][..., None, :]
          table = np.take_along_axis(table, order, -1)
      found[group.name] = table
    return found

  def tables(self, element: Tables) -> Tables:
    """Returns the tables of an element whose matrices are nearly orthogonal."""
    found = self.identity()
    for group in self.groups:
      if group.name not in element:
        continue
      table = np.asarray(element[group.name])
      if group.kind == 'sign':
        table = np.where(table < 0, -1.0, 1.0)[..., None, None]
      elif group.kind == 'phase':
        real, imaginary = table[..., 0], table[..., 1]
        table = procrustes.phase(procrustes.plane(real, imaginary))
      elif group.kind in _MATRICES:
        factor = self.symmetry.action[group.name].factor
        if factor in self.outer_of:
          inverse = np.argsort(np.asarray(element[factor]), -1)
          table = np.take_along_axis(table, inverse[..., None, :], -1)
        table = self.solvers(np.asarray)[group.name](table)
      found[group.name] = table
    return found


def of(symmetry: _symmetry.Symmetry, kinds: Collection[str]) -> View:
  """Returns the groups of some kinds, those of outer axes first."""
  chosen = tuple(a for a in symmetry.actions if a.kind in kinds)
  symmetry = dataclasses.replace(symmetry, actions=chosen)
  groups = []
  if 'permutation' in kinds:
    groups = [
      Group(g.name, symmetry.table_shape(g.name), g.outer)
      for g in symmetry.groups
    ]
  for action in chosen:
    factor = symmetry.factor[action.factor]
    shape = symmetry.table_shape(action.factor)
    one = action.name, action.kind, action.ones
    name, kind, ones = one
    if kind == 'sign':
      outer = (*factor.outer, factor.name)
      groups.append(Group(name, (*shape, 1), outer, kind))
    elif kind == 'phase':
      sizes = [symmetry.factor[f].size for f in action.over]
      groups.append(Group(name, (*sizes, 2), action.over, kind))
    elif kind in _MATRICES:
      groups.append(Group(name, shape, factor.outer, kind, ones))
  view = View(symmetry, tuple(groups))
  blocks = [names for leaf in symmetry.leaf for names in view.names(leaf)]
  used = {name for names in blocks for name in names}
  groups = [g for g in groups if g.name in used or g.kind == 'permutation']
  groups.sort(key=lambda group: len(group.outer))
  return View(symmetry, tuple(groups))
