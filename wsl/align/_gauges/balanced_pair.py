"""Two models in their balanced frames, where gauges are isometries."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
import warnings

import jax
import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _permutation, _symmetry
from wsl.align._gauges import compose, elements
from wsl.align._gauges.balance import balance

Element: TypeAlias = dict[str, Any]


class Frames(NamedTuple):
  """The maps of two models to their balanced representatives.

  If c maps a model to its balanced one, an element g between the given models
  is h = c_fixed g c_moving^-1 between the balanced ones.

  Attributes:
    symmetry: the symmetry, with the actions that are matched.
    fixed: the scales and linear maps of the fixed model, float64.
    moving: those of the moving model.
    dtype: of the result.
  """

  symmetry: _symmetry.Symmetry
  fixed: Element
  moving: Element
  dtype: Any


def enter(frames: Frames, element: Element) -> Element:
  """Returns an element of given models as one of the balanced models."""
  if not frames.symmetry.actions:
    return element
  # h = c_fixed g c_moving^-1; the factor on the right is applied first.
  undo = compose.inverse(_whole(frames, frames.moving), frames.symmetry, np)
  return _product(frames, undo, element, frames.fixed)


def leave(frames: Frames, element: Element) -> Element:
  """Returns an element of the balanced models as one of the given models."""
  found = _whole(frames, element)
  if frames.symmetry.actions:
    # g = c_fixed^-1 h c_moving.
    undo = compose.inverse(_whole(frames, frames.fixed), frames.symmetry, np)
    found = _product(frames, frames.moving, found, undo)
  cast = lambda x: x.astype(frames.dtype) if x.dtype.kind == 'f' else x
  return compose.to_device({n: cast(np.asarray(x)) for n, x in found.items()})


def _whole(frames: Frames, element: Element) -> Element:
  """Adds the identity of all groups and actions."""
  symmetry = frames.symmetry
  identity = jax.device_get(_permutation.identity(symmetry))
  names = [action.name for action in symmetry.actions]
  given = {name: np.asarray(x) for name, x in element.items()}
  return {**identity, **elements.identity_actions(symmetry, names), **given}


def _product(frames: Frames, *parts: Element) -> Element:
  """Returns the product of elements, the first one applied first."""
  found, *rest = (_whole(frames, part) for part in parts)
  for part in rest:
    found = compose.product(found, part, frames.symmetry, np)
  return found


def of(
  fixed: types.Params,
  moving: types.Params,
  symmetry: _symmetry.Symmetry,
  leaves: types.Leaves,
  *,
  caller: str,
) -> Frames:
  """Balances two models by the scales and linear maps of a symmetry.

  An action that cannot be balanced in one of them is kept in both: of a linear
  map only rotations are matched then, with a warning.

  Args:
    fixed: a model.
    moving: another one.
    symmetry: their symmetry, with the actions to match.
    leaves: the leaves whose norm counts.
    caller: the public function to name in messages.
  """
  pair = {'fixed': fixed, 'moving': moving}
  a, b = solve(pair, symmetry, leaves, caller=caller)
  floats = [x for x in jax.tree.leaves(fixed) if tree.is_float(x)]
  return Frames(symmetry, a, b, tree.wide_dtype(*floats))


def solve(
  models: Mapping[str, types.Params],
  symmetry: _symmetry.Symmetry,
  leaves: types.Leaves,
  *,
  caller: str,
) -> list[Element]:
  """Returns for each model the scales and linear maps that balance it.

  An action that cannot be balanced in one of them is kept in all.

  Args:
    models: models by their names in messages.
    symmetry: their symmetry, with the actions to match.
    leaves: the leaves whose norm counts.
    caller: the public function to name in messages.
  """
  found: list[Element] = []
  kept: dict[str, str] = {}
  for name, model in models.items():
    tables, reasons = balance.solve(
      model, symmetry, _symmetry.GAUGES, leaves, f'{caller}: {name}'
    )
    found.append(dict(tables))
    kept |= {n: f'{reason} of {name}' for n, reason in reasons.items()}
  for name, reason in kept.items():
    warnings.warn(
      f"{caller}: '{name}' is matched by rotations only: {reason}",
      stacklevel=4,
    )
  return [{n: x for n, x in t.items() if n not in kept} for t in found]


def apply(
  tables: Mapping[str, Any],
  symmetry: _symmetry.Symmetry,
  leaf: str,
  blocks: Sequence[tuple[Any, _blocks.Factors]],
) -> list[np.ndarray]:
  """Applies the tables of some actions to the blocks of a leaf."""
  acts = elements.acts_of(symmetry, leaf, tables)
  if not acts:
    return [block for block, _ in blocks]
  used = {act.name: tables[act.name] for act in acts}
  duals = elements.with_duals(symmetry, used, np)
  found = []
  for block, factors, here in elements.with_acts(blocks, acts):
    wide = block.astype(np.float64) if here else block
    moved = elements.act(wide, factors, here, duals, np)
    found.append(moved.astype(block.dtype))
  return found
