r"""Permutations that depend on the index of other factors (wreath products).

The units of attention can be permuted differently in each head: the group of
heads H and units U is the wreath product :math:`S_U \wr S_H` of order
:math:`(U!)^H H!` rather than the direct product of order U! H!. Units may
depend on the index of heads if

1. every array with an axis of units has an axis of heads, exactly once;
2. every product that contracts units also pairs heads, by contracting them or
   by keeping them as a batch axis of both operands;
3. no operation mixes indices of heads in an array with an axis of units.

Then the permutation can be chosen for each h: entries at head h are combined
only with entries at head h. The relation starts with all pairs of atoms that
occur together in a leaf; each array or mixing that violates a condition removes
pairs. Inside a scan, the axis of its steps counts as an axis of every array but
the carry.
"""

from collections.abc import Sequence
import itertools
import math
from typing import TypeAlias

from wsl.align._find import axis_facts, axis_tree

Blocks: TypeAlias = list[tuple[axis_tree.Axis, ...]]
Together: TypeAlias = dict[axis_tree.Axis, set[axis_tree.Axis]]
_LIMIT = 1024  # blocks of an array; axes of larger ones depend on nothing


def outer_atoms(
  leaves: Sequence[Sequence[Blocks]], facts: axis_facts.Facts
) -> dict[axis_tree.Axis, list[axis_tree.Axis]]:
  """Returns the atoms that each free atom depends on, outermost first.

  Args:
    leaves: the axes of each leaf, as sums of products of atoms.
    facts: the constraints collected from the equations.

  Returns:
    A dict over the free atoms. The relation is transitive: the outer atoms of
    an outer atom are included.
  """
  # Start: all atoms in the blocks of the leaves that hold an atom.
  together: Together = {}
  order: dict[axis_tree.Axis, int] = {}
  for axes in leaves:
    for atom in itertools.chain(*itertools.chain(*axes)):
      order.setdefault(atom, len(order))
    for block in _combine(axes) or ():
      for atom in block:
        if not atom.pin_reason:
          together.setdefault(atom, set()).update(block)
  # Conditions 1 and 2: intersect with the atoms of each array. A product
  # records its contracted and batch axes as one array, so the axes of units
  # that it contracts keep only the partners that it pairs.
  for axes in leaves:
    _restrict(together, axes)
  for tensor in facts.tensors.values():
    _restrict(
      together, [*map(axis_tree.blocks, (*tensor.axes, *tensor.layers))]
    )
  # Condition 3: no atom of the array depends on the index of a mixed axis.
  for axis, tensor in facts.mixed:
    mixed = set(axis_tree.atoms(axis))
    for other in tensor.axes:
      for atom in axis_tree.atoms(other):
        if atom in together:
          together[atom] -= mixed

  for others in together.values():
    others.difference_update([a for a in others if a.index_mixed])

  # If a and b always occur together, either could depend on the other. The one
  # that occurs first in the leaves, the major one, becomes the outer factor.
  def indexes(a: axis_tree.Axis, b: axis_tree.Axis) -> bool:
    mutual = b in together.get(a, ())
    return a is not b and (not mutual or order[a] < order[b])

  found = {b: {a for a in s if indexes(a, b)} for b, s in together.items()}
  depth = lambda a: (len(found.get(a, ())), order[a])
  return {b: sorted(s, key=depth) for b, s in found.items()}


def _restrict(together: Together, axes: Sequence[Blocks]) -> None:
  """Intersects the partners of each free atom with those in one array."""
  blocks = _combine(axes)
  if blocks is None:
    for atom in itertools.chain(*itertools.chain(*axes)):
      together.pop(atom, None)
    return
  for block in blocks:
    # An atom that occurs twice, as in a square map, is no index of a row: its
    # two indices differ. So it is no partner, but may have partners: w[h, u, v]
    # becomes w[h, t_h(u), t_h(v)], as in gates that are diagonal in heads.
    once = {a for a in block if block.count(a) == 1}
    for atom in block:
      if atom in together:
        together[atom] &= once


def _combine(axes: Sequence[Blocks]) -> Blocks | None:
  """Returns the blocks of an array: one segment of each axis, in all ways."""
  if math.prod(map(len, axes)) > _LIMIT:
    return None
  return [tuple(itertools.chain(*c)) for c in itertools.product(*axes)]
