"""Which units of two models are kept separate: the arguments, checked."""

from collections.abc import Mapping, Sequence
import dataclasses
import math

import numpy as np

from wsl import tree, types
from wsl.align import _symmetry
from wsl.align._partial import entry_sources


def split(
  a: types.Params,
  b: types.Params,
  symmetry: _symmetry.Symmetry,
  separate: float | Mapping[str, float],
  outputs: Sequence[str],
  caller: str,
) -> entry_sources.Split:
  """Counts the units that each group keeps separate.

  Args:
    a: a model.
    b: another one, of the same leaves; its outputs may differ in number.
    symmetry: the symmetry of ``a``.
    separate: fractions by group, or one for all.
    outputs: pinned factors whose entries are put side by side.
    caller: the public function, for its error messages.

  Returns:
    The counts; groups that keep nothing are left out.

  Raises:
    ValueError: naming the leaf, group or fraction that does not fit.
  """
  tree.check_names(f'{caller}: b', b, 'a', a)
  _symmetry.check_leaves(symmetry, tree.named(a), f'{caller}: a')
  names = [group.name for group in movable(symmetry)]
  if not isinstance(separate, Mapping):
    separate = dict.fromkeys(names, separate)
  counts = {}
  for name, fraction in separate.items():
    if not 0 <= fraction <= 1:
      raise ValueError(
        f"{caller}: separate={fraction} of group '{name}', expected a fraction "
        '0 .. 1 of its units'
      )
    _check_group(name, names, symmetry, caller)
    count = math.floor(fraction * symmetry.factor[name].size + 1e-6)
    if count:
      counts[name] = count
  result = entry_sources.Split(
    counts, _sizes_in_b(b, symmetry, outputs, caller)
  )
  _symmetry.check_leaves(of_b(symmetry, result), tree.named(b), f'{caller}: b')
  return result


def movable(symmetry: _symmetry.Symmetry) -> list[_symmetry.Factor]:
  """Returns the groups that may keep units separate.

  Those that depend on a group (units of a head, on the head) keep their width.
  """
  return [
    group
    for group in symmetry.groups
    if all(symmetry.factor[outer].pinned for outer in group.outer)
  ]


def of_b(
  symmetry: _symmetry.Symmetry, split: entry_sources.Split
) -> _symmetry.Symmetry:
  """Returns the symmetry with B's number of outputs."""
  factors = tuple(
    f._replace(size=split.outputs.get(f.name, f.size)) for f in symmetry.factors
  )
  return dataclasses.replace(symmetry, factors=factors)


def holding(symmetry: _symmetry.Symmetry, factors: Sequence[str]) -> set[str]:
  """Returns the names of the leaves that hold one of some factors."""
  return {
    name
    for name, axes in symmetry.axes
    if any(f in factors for axis in axes for segment in axis for f in segment)
  }


def _check_group(
  name: str, names: list[str], symmetry: _symmetry.Symmetry, caller: str
) -> None:
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
      'outputs of different label spaces are named in outputs'
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
  for name in outputs:
    if name not in symmetry.factor or not symmetry.factor[name].pinned:
      pinned = [f.name for f in symmetry.factors if f.pinned]
      raise ValueError(
        f"{caller}: outputs names '{name}', which is no pinned factor of the "
        f'symmetry{tree.nearest(name, pinned)}'
      )
  sizes = {name: symmetry.factor[name].size for name in outputs}
  for name, x in tree.named(b).items():
    for axis, size in zip(symmetry.leaf.get(name, ()), np.shape(x)):
      if len(axis) == 1 and len(axis[0]) == 1 and axis[0][0] in sizes:
        sizes[axis[0][0]] = size
  return sizes
