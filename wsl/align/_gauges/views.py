"""Blocks of a model, with axes named by the maps of a compact gauge.

Matching sees four kinds of groups. A permutation has a table of indices, and
each orthogonal map a table of matrices: rotations, phases (of the plane of a
pair), and signs, which are orthogonal maps of one dimension. An axis on which a
rotation acts has its name in place of the factor's: permutations are rotations.
A sign adds an axis of size 1, which depends on the factor as the units of a
head depend on the head. Where the factor occurs twice in a leaf, as in a
recurrent matrix, its signed permutations are one group of matrices.
"""

from collections.abc import Callable, Collection
import dataclasses
import functools
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from wsl.align import _symmetry
from wsl.align._gauges import elements, procrustes

Names: TypeAlias = tuple[str, ...]
Tables: TypeAlias = dict[str, np.ndarray]
_MATRICES = ('rotation', 'linear', 'phase', 'signed permutation')


class Group(NamedTuple):
  """A group to match.

  Attributes:
    name: of the factor, or of the action.
    shape: of its table of indices, ``[*outer sizes, size]``.
    outer: the axes on which its table depends, outermost first.
    kind: ``'permutation'``, that of the action, or ``'signed permutation'``.
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
    permutes: whether permutations are among the kinds.
  """

  symmetry: _symmetry.Symmetry
  groups: tuple[Group, ...]
  permutes: bool

  @functools.cached_property
  def kinds(self) -> dict[str, str]:
    """The kind of each group."""
    return {group.name: group.kind for group in self.groups}

  @functools.cached_property
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

    def solver(group: Group) -> Callable[[Any], Any]:
      if group.kind == 'permutation':
        return assign
      if group.kind == 'signed permutation':
        order = assign if self.permutes else _current_order
        return functools.partial(procrustes.signed_permutation, order)
      if group.kind == 'phase':
        return procrustes.phase
      one = procrustes.rotation_fixing_ones
      return one if group.ones else procrustes.rotation

    return {group.name: solver(group) for group in self.groups}

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
        kind = self.kinds.get(act.name, act.kind)
        if act.block == k and kind in _MATRICES:
          names[act.dim] = act.name
        elif act.block == k and kind == 'sign' and act.power % 2:
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
      elif group.kind == 'signed permutation':
        order = np.abs(table).argmax(-1).astype(np.int32)
        found[self.symmetry.action[group.name].factor] = order
        table = table.sum(-1)
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
      elif group.kind == 'signed permutation':
        order = np.asarray(element[self.symmetry.action[group.name].factor])
        table = np.sign(table)[..., None] * np.eye(order.shape[-1])[order]
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
  twice = [a for a in chosen if _twice(symmetry, a)]
  signed = {a.name: a.factor for a in twice if _is_signed(symmetry, a)}
  # Other signs of recurrent units are not matched.
  chosen = tuple(a for a in chosen if a not in twice or a.name in signed)
  symmetry = dataclasses.replace(symmetry, actions=chosen)
  groups = []
  if 'permutation' in kinds:
    groups = [
      Group(g.name, symmetry.table_shape(g.name), g.outer)
      for g in symmetry.groups
      if g.name not in signed.values()
    ]
  for action in chosen:
    factor = symmetry.factor[action.factor]
    shape = symmetry.table_shape(action.factor)
    name, kind, ones = action.name, action.kind, action.ones
    if name in signed:
      kind = 'signed permutation'
      groups.append(Group(name, shape, factor.outer, kind))
    elif kind == 'sign':
      outer = (*factor.outer, factor.name)
      groups.append(Group(name, (*shape, 1), outer, kind))
    elif kind == 'phase':
      sizes = [symmetry.factor[f].size for f in action.over]
      groups.append(Group(name, (*sizes, 2), action.over, kind))
    elif kind in _MATRICES:
      groups.append(Group(name, shape, factor.outer, kind, ones))
  permutes = 'permutation' in kinds
  view = View(symmetry, tuple(groups), permutes)
  blocks = [names for leaf in symmetry.leaf for names in view.names(leaf)]
  used = {name for names in blocks for name in names}
  groups = [g for g in groups if g.name in used or g.kind == 'permutation']
  groups.sort(key=lambda group: len(group.outer))
  return View(symmetry, tuple(groups), permutes)


def _current_order(gains: np.ndarray) -> np.ndarray:
  """Returns the indices of the identity."""
  n = gains.shape[-1]
  return np.broadcast_to(np.arange(n, dtype=np.int32), gains.shape[:-1])


def _twice(symmetry: _symmetry.Symmetry, action: _symmetry.Action) -> bool:
  """Returns True for a sign whose factor occurs twice in a leaf."""
  if action.kind != 'sign':
    return False
  names = dict.fromkeys(p.leaf for p in action.powers)
  return any(
    [factor.name for factor in block].count(action.factor) > 1
    for name in names
    for block in elements.factors_of(symmetry.plan(name))
  )


def _is_signed(symmetry: _symmetry.Symmetry, action: _symmetry.Action) -> bool:
  """Returns True if a sign and the permutations of its factor are one group.

  The sign has to act on every axis of its factor, alone, and nothing may depend
  on the factor.
  """
  factor = symmetry.factor[action.factor]
  alone = sum(a.factor == factor.name for a in symmetry.actions) == 1
  inner = any(factor.name in other.outer for other in symmetry.factors)
  axes = sum(
    [f.name for f in block].count(factor.name)
    for leaf in symmetry.leaf
    for block in elements.factors_of(symmetry.plan(leaf))
  )
  acts = [
    act
    for leaf in symmetry.leaf
    for act in elements.acts_of(symmetry, leaf, {action.name})
  ]
  odd = all(act.power % 2 for act in acts) and len(acts) == axes
  return alone and odd and not inner and not factor.pinned
