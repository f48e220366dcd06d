"""Elements of a gauge from the moments of two models' activations."""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
from typing import Any, TypeAlias

import numpy as np

from wsl.align import _assignment, _nested_assignment, _symmetry
from wsl.align._activations import (
  activation_frames,
  activation_moments,
  readings,
)
from wsl.align._activations import reading as reading_lib
from wsl.align._gauges import balanced_pair, elements, procrustes, views

Names: TypeAlias = tuple[str, ...]
Observed: TypeAlias = tuple[reading_lib.Reading, activation_moments.Moments]


def view_of(symmetry: _symmetry.Symmetry, kinds: Sequence[str]) -> views.View:
  """Returns the groups of some kinds, with signs separate from permutations.

  Activations have each unit once, those of recurrent maps too.
  """
  view = views.of(symmetry, kinds)
  chosen = tuple(a for a in symmetry.actions if a.kind in kinds)
  signs = {a.name for a in chosen if a.kind == 'sign'}
  groups = [g for g in view.groups if g.name not in signs]
  missing = {f.name for f in symmetry.groups} - {g.name for g in groups}
  if view.permutes:
    groups += [
      views.Group(f.name, symmetry.table_shape(f.name), f.outer)
      for f in symmetry.groups
      if f.name in missing
    ]
  for name in sorted(signs):
    factor = symmetry.factor[symmetry.action[name].factor]
    shape = (*symmetry.table_shape(factor.name), 1)
    outer = (*factor.outer, factor.name)
    groups.append(views.Group(name, shape, outer, 'sign'))
  groups.sort(key=lambda group: len(group.outer))
  whole = dataclasses.replace(symmetry, actions=chosen)
  return views.View(whole, tuple(groups), view.permutes)


def add_batch(
  observed: Sequence[Observed],
  pairs: Sequence[readings.Pair],
  view: views.View,
) -> list[Observed]:
  """Adds a batch to the moments of every reading."""
  before: list[activation_moments.Moments | None] = [m for _, m in observed]
  before = before or [None] * len(pairs)
  return [
    (
      reading,
      activation_moments.accumulate(
        old,
        x,
        y,
        _labels_of(reading, view),
        exact=any(act.kind in ('rotation', 'linear') for act in reading.acts),
      ),
    )
    for old, (reading, x, y) in zip(before, pairs)
  ]


def check_finite(observed: Sequence[Observed]) -> None:
  """Raises a ValueError if an activation is not finite."""
  for reading, moments in observed:
    if not np.isfinite(moments.products).all():
      raise ValueError(
        f"activation_matching: an activation of '{reading.group}' is NaN or inf"
      )


def _labels_of(
  reading: reading_lib.Reading, view: views.View
) -> activation_moments.Labels:
  """Returns the einsum subscripts of a reading, see ``activation_moments``."""
  outer_of = view.outer_of | {reading.group: _outer(reading)}
  return activation_moments.einsum_labels(reading.group, outer_of)


def _outer(reading: reading_lib.Reading) -> Names:
  """Returns the factors on which the table of a reading's group depends."""
  names = tuple(factor.name for factor in reading.factors)
  return names if reading.signs else names[:-1]


def match(
  observed: Sequence[Observed],
  view: views.View,
  *,
  gain: str,
  solver: _assignment.Solver,
  dtype: Any,
) -> dict[str, Any]:
  """Finds the element that brings the activations of a model to another's.

  Scales, linear maps and moduli of phases follow from the second moments of
  each model. They take both models to frames in which all other maps are
  isometries, and each has its best table from the cross moments, units by the
  values of their signs, and heads by those of all their maps.

  Args:
    observed: all readings with their moments.
    view: the groups and actions to match.
    gain: ``'correlation'`` for centred moments, or ``'inner'``.
    solver: an assignment solver.
    dtype: of the tables.
  """
  frames = activation_frames.of(
    observed, view.symmetry, gain == 'correlation', dtype
  )
  outer_of, start = dict(view.outer_of), view.identity()
  solvers = view.solvers(solver)
  for action in view.symmetry.actions:
    if action.kind == 'sign':
      for tables in (outer_of, start, solvers):
        tables.pop(action.name, None)
  # An activation shows the product of the signs of all actions on it: products
  # are matched, and signs of single actions are solved for at the end.
  products = {r.group: r for r, _ in observed if r.signs}
  for name, reading in products.items():
    outer_of[name] = _outer(reading)
    sizes = [factor.size for factor in reading.factors]
    start[name] = np.ones((*sizes, 1, 1))
    solvers[name] = procrustes.rotation
  total: dict[str, np.ndarray] = {}
  for reading, moments in observed:
    if reading.group in outer_of and not reading.frames_only:
      gains = _gains(reading, moments, frames, gain)
      total[reading.group] = total.get(reading.group, 0.0) + gains
  found = _nested_assignment.assign(
    total, start=start, outer_of=outer_of, solvers=solvers
  )
  found |= _signs([*products.values()], found, view)
  element = balanced_pair.leave(frames, view.element(found))
  groups = [group.name for group in view.symmetry.groups]
  return {name: element[name] for name in (*groups, *view.symmetry.action)}


def _gains(
  reading: reading_lib.Reading,
  moments: activation_moments.Moments,
  frames: balanced_pair.Frames,
  gain: str,
) -> np.ndarray:
  """Returns the gains of a reading, in the frames of both models."""
  kinds = {act.kind for act in reading.acts}
  if not kinds & {'rotation', 'linear', 'phase'}:
    names = {factor.name for factor in reading.factors}
    actions = frames.symmetry.actions
    scales = {a.factor for a in actions if a.kind == 'scale'}
    scaled = gain == 'inner' and bool(names & scales)
    return activation_moments.gains(moments, 'cosine' if scaled else gain)
  centred = gain == 'correlation'
  cross = activation_moments.gains(moments, 'covariance' if centred else gain)
  new, old, result = moments.labels
  for tables, own in ((frames.fixed, new), (frames.moving, old)):
    acts = tuple(act for act in reading.acts if act.name in tables)
    if acts:
      # The axes of one model first, and all others as columns.
      axes = [result.index(label) for label in own]
      used = {act.name: tables[act.name] for act in acts}
      duals = elements.with_duals(frames.symmetry, used, np)
      front: Any = np.moveaxis(cross, axes, range(len(axes)))
      front = elements.act(front, reading.factors, acts, duals, np)
      cross = np.moveaxis(front, range(len(axes)), axes)
  return cross


def _signs(
  products: Sequence[reading_lib.Reading],
  found: Mapping[str, np.ndarray],
  view: views.View,
) -> dict[str, np.ndarray]:
  """Returns the signs of each action, from those of the products of actions.

  With parities x of the actions, those of the products are V x modulo 2; of all
  x with the parities found the first one is taken.
  """
  tables: dict[str, np.ndarray] = {}
  for factor in dict.fromkeys(r.factors for r in products):
    mine = [r for r in products if r.factors == factor]
    names = [*dict.fromkeys(itertools.chain(*(r.signs for r in mine)))]
    odd = np.asarray([[n in r.signs for n in names] for r in mine], int)
    first: dict[Any, Any] = {}
    for x in itertools.product((0, 1), repeat=len(names)):
      first.setdefault(tuple(odd @ x % 2), x)
    negative = np.stack([found[r.group][..., 0, 0] < 0 for r in mine], -1)
    weights = 1 << np.arange(len(mine))
    lookup = np.zeros((1 << len(mine), len(names)))
    for parities, x in first.items():
      lookup[weights @ parities] = x
    solved = 1 - 2 * lookup[negative @ weights]
    for i, name in enumerate(names):
      tables[name] = solved[..., i, None, None]
  for action in view.symmetry.actions:
    if action.kind == 'sign' and action.name not in tables:
      shape = view.symmetry.action_shape(action.name)
      tables[action.name] = np.ones((*shape, 1, 1))
  return tables
