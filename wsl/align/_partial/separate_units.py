"""Validates how many units of each group are kept separate."""

from collections.abc import Mapping, Sequence
import dataclasses
import math

import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _symmetry
from wsl.align._partial import entry_sources


def count_units(
  a: types.Params,
  b: types.Params,
  symmetry: _symmetry.Symmetry,
  separate: float | Mapping[str, float],
  outputs: Sequence[str],
  caller: str,
) -> entry_sources.UnitCounts:
  """Returns how many units each group keeps separate.

  Args:
    a: a model.
    b: a model with the same leaves; its number of outputs may differ.
    symmetry: the symmetry of ``a``.
    separate: fractions by group, or one for all.
    outputs: pinned factors whose entries are concatenated.
    caller: the public function, named in error messages.

  Returns:
    The counts, without groups of zero separate units.

  Raises:
    ValueError: naming the leaf, group or fraction that does not fit.
  """
  tree.check_names(f'{caller}: b', b, 'a', a)
  tree.check_weights(caller, {'a': a, 'b': b})
  _arguments.check_leaves(symmetry, tree.named(a), f'{caller}: a')
  names = [group.name for group in movable(symmetry)]
  if not isinstance(separate, Mapping):
    separate = dict.fromkeys(names, separate)
  separate_counts = {}
  for name, fraction in separate.items():
    tree.check_scalars(caller, remedy='or one by group', separate=fraction)
    if fraction is None or not 0 <= fraction <= 1:
      raise ValueError(
        f"{caller}: separate={fraction} of group '{name}', expected a fraction "
        '0 .. 1 of its units'
      )
    _check_group(name, names, symmetry, caller)
    # In floating point 0.29 * 100 is below 29: round down with a margin.
    count = math.floor(fraction * symmetry.factor[name].size + 1e-6)
    if count:
      separate_counts[name] = count
  counts = entry_sources.UnitCounts(
    separate_counts, _sizes_in_b(b, symmetry, outputs, caller)
  )
  _arguments.check_leaves(
    symmetry_of_b(symmetry, counts), tree.named(b), f'{caller}: b'
  )
  return counts


def movable(symmetry: _symmetry.Symmetry) -> list[_symmetry.Factor]:
  """Returns the groups that may keep units separate.

  A group that depends on another group, as the units of a head do on the head,
  keeps its width: its units are separate where those of the outer group are.
  """
  return [
    group
    for group in symmetry.groups
    if all(symmetry.factor[outer].pinned for outer in group.outer)
  ]


def symmetry_of_b(
  symmetry: _symmetry.Symmetry, counts: entry_sources.UnitCounts
) -> _symmetry.Symmetry:
  """Returns the symmetry of B, whose number of outputs may differ."""
  factors = tuple(
    f._replace(size=counts.outputs.get(f.name, f.size))
    for f in symmetry.factors
  )
  return dataclasses.replace(symmetry, factors=factors)


def leaves_with_factors(
  symmetry: _symmetry.Symmetry, factors: Sequence[str]
) -> set[str]:
  """Returns the names of the leaves that contain any of some factors."""
  return {
    name
    for name, axes in symmetry.axes
    if any(f in factors for axis in axes for segment in axis for f in segment)
  }


def _check_group(
  name: str, names: list[str], symmetry: _symmetry.Symmetry, caller: str
) -> None:
  """Raises a ValueError unless units of the group may be kept separate."""
  if name in names:
    return
  if name not in symmetry.factor:
    raise ValueError(
      f"{caller}: the symmetry has no group '{name}'{tree.nearest(name, names)}"
    )
  factor = symmetry.factor[name]
  if factor.pinned:
    raise ValueError(
      f"{caller}: separate names '{name}', which is pinned ({factor.pinned}); "
      'outputs of different label spaces belong in outputs'
    )
  raise ValueError(
    f"{caller}: the group '{name}' depends on {', '.join(factor.outer)}: keep "
    'units of that group separate'
  )


def _sizes_in_b(
  b: types.Params,
  symmetry: _symmetry.Symmetry,
  outputs: Sequence[str],
  caller: str,
) -> dict[str, int]:
  """Returns the sizes in B of the output factors, from its leaves' shapes."""
  for name in outputs:
    if name not in symmetry.factor or not symmetry.factor[name].pinned:
      pinned = [f.name for f in symmetry.factors if f.pinned]
      raise ValueError(
        f"{caller}: outputs names '{name}', which is not a pinned factor of "
        f'the symmetry{tree.nearest(name, pinned)}'
      )
  sizes = {name: symmetry.factor[name].size for name in outputs}
  for name, x in tree.named(b).items():
    for axis, size in zip(symmetry.leaf.get(name, ()), np.shape(x)):
      if len(axis) == 1 and len(axis[0]) == 1 and axis[0][0] in sizes:
        sizes[axis[0][0]] = size
  return sizes
