"""Permutations that depend on the index of other factors (wreath products).

Units may be permuted differently in each head where

1. every tensor that holds units holds heads exactly once;
2. every product that contracts units pairs heads, by contracting them too or
   by keeping them as a batch axis of both sides;
3. nothing mixes the indices of heads in a tensor that holds units.

Inside a scan the axis of its steps counts as present in all but the carry.
"""

from collections.abc import Sequence
import itertools
import math
from typing import TypeAlias

from wsl.align._find import axis_facts, axis_tree

Blocks: TypeAlias = list[tuple[axis_tree.Axis, ...]]
Together: TypeAlias = dict[axis_tree.Axis, set[axis_tree.Axis]]
_LIMIT = 1024  # blocks of a tensor; of tensors with more nothing is claimed


def outer(
  leaves: Sequence[Sequence[Blocks]], facts: axis_facts.Facts
) -> dict[axis_tree.Axis, list[axis_tree.Axis]]:
  """Returns for every free atom those it depends on, outermost first.

  Args:
    leaves: for each leaf its axes, as sums of products of atoms.
    facts: what happened to them.

  Returns:
    A dict over the free atoms; what an outer atom depends on is in it too.
  """
  together: Together = {}
  order: dict[axis_tree.Axis, int] = {}
  for axes in leaves:
    for atom in itertools.chain(*itertools.chain(*axes)):
      order.setdefault(atom, len(order))
    for block in _combine(axes) or ():
      for atom in block:
        if not atom.pin_reason:
          together.setdefault(atom, set()).update(block)
  for axes in leaves:
    _restrict(together, axes)
  for tensor in facts.tensors.values():
    _restrict(
      together, [*map(axis_tree.blocks, (*tensor.axes, *tensor.layers))]
    )
  for axis, tensor in facts.mixed:
    mixed = set(axis_tree.atoms(axis))
    for other in tensor.axes:
      for atom in axis_tree.atoms(other):
        if atom in together:
          together[atom] -= mixed

  for others in together.values():
    others.difference_update([a for a in others if a.index_mixed])

  def indexes(a: axis_tree.Axis, b: axis_tree.Axis) -> bool:
    mutual = b in together.get(a, ())
    return a is not b and (not mutual or order[a] < order[b])

  found = {b: {a for a in s if indexes(a, b)} for b, s in together.items()}
  depth = lambda a: (len(found.get(a, ())), order[a])
  return {b: sorted(s, key=depth) for b, s in found.items()}


def _restrict(together: Together, axes: Sequence[Blocks]) -> None:
  """Drops what a tensor's free atoms do not occur together with."""
  blocks = _combine(axes)
  if blocks is None:
    for atom in itertools.chain(*itertools.chain(*axes)):
      together.pop(atom, None)
    return
  for block in blocks:
    once = {a for a in block if block.count(a) == 1}
    for atom in block:
      if atom in together:
        together[atom] &= once if atom in once else set()


def _combine(axes: Sequence[Blocks]) -> Blocks | None:
  """Returns all choices of one segment of each axis."""
  if math.prod(map(len, axes)) > _LIMIT:
    return None
  return [tuple(itertools.chain(*c)) for c in itertools.product(*axes)]
