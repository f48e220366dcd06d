"""The inputs and outputs of products with leaves on which an action acts."""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _symmetry
from wsl.align._activations import activation_sites, leaf_products
from wsl.align._activations import reading as reading_lib
from wsl.align._find import find
from wsl.align._gauges import elements, views

_MATRICES = ('rotation', 'linear', 'phase')


class Candidate(NamedTuple):
  """A reading, and how to extract it from its array.

  Attributes:
    reading: the reading.
    product: the array.
    axes: the axes of the leaf along the array.
    block: the position of the block among those of these axes.
    order: the transposition of its factors to rows, outer ones, the last.
    rows: the number of factors that are rows.
  """

  reading: reading_lib.Reading
  product: leaf_products.LeafProduct
  axes: tuple[int, ...]
  block: int
  order: tuple[int, ...]
  rows: int


def all_of(
  view: views.View, found: find.Analysis, params: types.Params
) -> list[Candidate]:
  """Lists readings on which an action acts, in order of preference.

  First are those of one group only; among these inputs, from the last one.
  """
  shapes = {name: np.shape(x) for name, x in tree.named(params).items()}
  products = leaf_products.find(found.program, shapes)
  symmetry = view.symmetry
  result = []
  for product in sorted(reversed(products), key=lambda p: not p.inverse):
    operands = found.facts.products.get(product.key[0])
    if operands is None:
      continue
    dims = operands[product.operand].axes
    rows = activation_sites.groups_in(
      [dims[i] for i in product.rows], found, symmetry
    )
    pieces = [x for x in itertools.chain(*product.dims) if x.size > 1]
    axes = tuple(sorted({x.axis for x in pieces}))
    # The array has whole axes of the leaf, or the actions cannot be applied.
    whole = all(
      math.prod(x.size for x in pieces if x.axis == i)
      == shapes[product.leaf][i]
      for i in axes
    )
    if not whole or moved_factors(symmetry) & {*rows}:
      continue
    part = symmetry_of(symmetry, product, axes)
    acts = elements.acts_of(part, product.leaf, part.action)
    shared = tuple(axes.index(i) for i in product.shared if i in axes)
    for k, factors in enumerate(elements.factors_of(part.plan(product.leaf))):
      mine = tuple(act for act in acts if act.block == k)
      if not mine or _on_axes(mine, part, product.leaf, k, shared):
        continue
      for dim in dict.fromkeys(act.dim for act in mine):
        reading = _reading(view, factors, mine, dim, bool(rows))
        if reading is not None:
          names = [f.name for f in factors]
          own = [names.index(f.name) for f in reading.factors]
          rest = [i for i in range(len(names)) if i not in own]
          order = (*rest, *own)
          found_one = Candidate(reading, product, axes, k, order, len(rest))
          result.append(found_one)
  return sorted(result, key=lambda c: c.reading.frames_only)


def moved_factors(symmetry: _symmetry.Symmetry) -> frozenset[str]:
  """Returns the factors on which maps act that are no signs or rotations.

  A phase acts on pairs, whose entries may be rows or part of a longer axis:
  the arrays that have them have the pinned factors of the phase too.
  """
  found: set[str] = set()
  for action in symmetry.actions:
    if action.kind in ('scale', 'linear', 'phase'):
      pinned = (o for o in action.over if symmetry.factor[o].pinned)
      found |= {action.factor, *pinned}
  return frozenset(found)


def symmetry_of(
  symmetry: _symmetry.Symmetry,
  product: leaf_products.LeafProduct,
  axes: tuple[int, ...],
) -> _symmetry.Symmetry:
  """Returns the symmetry of an array with some axes of a leaf."""
  # x W = (x A^-1) (A W): the array that a leaf contracts moves by the inverse.
  leaf, sign = product.leaf, -1 if product.inverse else 1
  place = {axis: i for i, axis in enumerate(axes)}
  actions = tuple(
    action._replace(
      powers=tuple(
        p._replace(axis=place[p.axis], power=sign * p.power)
        for p in action.powers
        if p.leaf == leaf and p.axis in place
      )
    )
    for action in symmetry.actions
  )
  return dataclasses.replace(
    symmetry,
    axes=((leaf, tuple(symmetry.leaf[leaf][i] for i in axes)),),
    actions=actions,
    interleaved=tuple(
      run._replace(axis=place[run.axis])
      for run in symmetry.interleaved
      if run.leaf == leaf and run.axis in place
    ),
  )


def _on_axes(
  acts: Sequence[elements.Act],
  part: _symmetry.Symmetry,
  leaf: str,
  block: int,
  axes: Sequence[int],
) -> bool:
  """Returns True if one of the actions is on one of some axes of the array."""
  plan = part.plan(leaf)
  rows = [*itertools.product(*plan)][block]
  owner = [i for i, segment in enumerate(rows) for _ in segment]
  return any(owner[act.dim] in axes for act in acts)


def _reading(
  view: views.View,
  factors: _blocks.Factors,
  acts: tuple[elements.Act, ...],
  dim: int,
  unordered: bool,
) -> reading_lib.Reading | None:
  """Returns the reading of one dimension of a block; None if there is none.

  Isometries of other dimensions, which become rows, keep second moments.

  Args:
    view: the groups and actions to match.
    factors: of the block.
    acts: the actions on it.
    dim: the dimension.
    unordered: whether rows have another order in each model.
  """
  symmetry, outer_of = view.symmetry, view.outer_of
  others = {act.kind for act in acts if act.dim != dim}
  acts = tuple(act for act in acts if act.dim == dim)
  if others - {'sign', 'rotation'}:
    return None
  own = factors[dim]
  matrices = [a for a in acts if a.kind in _MATRICES]
  if len(matrices) > 1:
    return None
  outer = tuple(own.outer)
  group = own.name
  if matrices:
    group, outer = matrices[0].name, outer_of[matrices[0].name]
  names = [factor.name for factor in factors]
  free = {n for n in names if n in outer_of and n != own.name}
  if not {*outer} <= {*names}:
    return None
  if any(names.count(n) > 1 for n in (*outer, own.name)):
    return None
  signs = tuple(a.name for a in acts if a.kind == 'sign' and a.power % 2)
  if signs and matrices:
    return None
  frames_only = unordered or bool(others) or not free <= {*outer}
  if frames_only:
    signs = ()
  chain = tuple(symmetry.factor[n] for n in (*outer, own.name))
  last = len(chain) - 1
  moved = tuple(a._replace(dim=last, block=0) for a in acts)
  return reading_lib.Reading(
    ' * '.join(signs) or group, chain, moved, signs, frames_only
  )


def choose(candidates: Sequence[Candidate]) -> list[Candidate]:
  """Chooses the readings that determine the actions of each factor.

  A reading is taken if its powers of scales, or its parities of signs, are no
  combination of those taken before, or if it is the first vector or covector of
  a matrix.
  """
  chosen: list[Candidate] = []
  powers: dict[str, list[Mapping[str, float]]] = {}
  parities: dict[str, set[frozenset[str]]] = {}
  matrices: set[tuple[str, bool]] = set()
  for c in candidates:
    name, acts = c.reading.factors[-1].name, c.reading.acts
    scales = {a.name: a.power for a in acts if a.kind == 'scale'}
    signs = frozenset(c.reading.signs)
    rows = powers.setdefault(name, [])
    span = parities.setdefault(name, {frozenset()})
    taken = {frozenset(x.reading.signs) for x in chosen}
    own = {
      (a.name, a.power > 0 and a.kind != 'rotation')
      for a in acts
      if a.kind in _MATRICES
      and not (c.reading.frames_only and a.kind == 'rotation')
    }
    scaled = bool(scales) and reading_lib.rank([*rows, scales]) > len(rows)
    # The sign of a sum of dependent readings is no free variable.
    dependent = signs in span and signs and signs not in taken
    if dependent or not (scaled or signs not in span or own - matrices):
      continue
    chosen.append(c)
    matrices |= own
    if scaled:
      rows.append(scales)
    if signs not in span:
      span |= {x ^ signs for x in span}
  return chosen
