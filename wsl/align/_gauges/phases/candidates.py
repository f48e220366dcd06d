"""Pairs of entries of leaves on which a phase may act."""

from collections.abc import Iterator, Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np

from wsl.align import _blocks, _symmetry
from wsl.align._find import axis_facts, axis_tree
from wsl.align._gauges.phases import forms, moves

_LIMIT = 1 << 17  # entries of a leaf that are distinguished
_DATA = (
  'an axis of the input', 'an axis of the output', axis_tree.UNUSED,
)  # fmt: skip


class Candidate(NamedTuple):
  """A segment of an axis of a leaf, with a pinned factor of size 2.

  Attributes:
    leaf: the name of the leaf.
    axis: the axis.
    segment: the segment.
    pair: the position of the factor of size 2.
    over: the factors that index the phases: of other axes, such as heads, and
      the rest of the segment.
    stack: the factor that the steps of a scan index, if the function uses the
      leaf there only; ``''`` if there is none.
    phases: the numbers of the phases, ``[*sizes of over]``.
  """

  leaf: str
  axis: int
  segment: int
  pair: int
  over: tuple[str, ...]
  stack: str
  phases: np.ndarray


def add(
  c: forms.Phases,
  facts: axis_facts.Facts,
  symmetry: _symmetry.Symmetry,
  taken: Sequence[tuple[str, int, int]],
  rank: int,
) -> list[Candidate]:
  """Gives leaves with candidates their forms.

  Args:
    c: receives the forms.
    facts: the equations.
    symmetry: the symmetry without actions.
    taken: the leaves, axes and segments that have a phase.
    rank: which of the pinned factors of size 2 of each segment is the pair.

  Returns:
    The candidates.
  """
  leaves = dict(zip(symmetry.leaf, facts.leaves))
  pairs = {
    name: found
    for name in leaves
    if (found := [*_pairs(symmetry, name, taken, rank)])
  }
  uses = _uses(facts, {leaves[name].number: name for name in pairs})
  out: list[Candidate] = []
  start = 0
  for name, found in pairs.items():
    plan, use = symmetry.plan(name), uses[name]
    axes = {axis for axis, _, _ in found}
    if len(axes) > 1 or not axes <= use.kept:
      continue
    (axis,) = axes
    shape = tuple(x.size for x in leaves[name].axes)
    others = [i for i in sorted(use.kept - axes) if len(plan[i]) == 1]
    if moves.entries(shape, frozenset({axis, *others})) > _LIMIT:
      others = []
    dims = frozenset({axis, *others})
    unit = np.full(moves.sizes(shape, dims), forms.FIXED)
    parts = symmetry.layout(name)[axis]
    spots = _blocks.to_blocks(np.arange(shape[axis]), (parts,))
    outside = [f for i in others for f in plan[i][0]]
    whole = use.stacked and len(plan[0]) == len(plan[0][0]) == 1
    stack = plan[0][0][0].name if whole else ''
    for _, segment, pair in found:
      positions, factors = spots[segment]
      over = [*outside, *factors[:pair], *factors[pair + 1 :]]
      sizes = [f.size for f in over]
      phases = start + np.arange(math.prod(sizes)).reshape(sizes)
      start += phases.size
      _write(unit, phases, positions, len(outside) + pair, axis, others)
      names = tuple(f.name for f in over)
      out.append(Candidate(name, axis, segment, pair, names, stack, phases))
    one = np.zeros((1,) * len(shape), np.int64)
    term = forms.Term(unit, one + c.source(name), one + c.names.one)
    c.states[leaves[name].number] = forms.Form(shape, dims, (term,))
  return out


def _pairs(
  symmetry: _symmetry.Symmetry,
  name: str,
  taken: Sequence[tuple[str, int, int]],
  rank: int,
) -> Iterator[tuple[int, int, int]]:
  """Yields the axes, segments and positions of pinned factors of size 2."""
  for i, axis in enumerate(symmetry.plan(name)):
    for s, segment in enumerate(axis):
      places = [
        k
        for k, f in enumerate(segment)
        if f.size == 2 and f.pinned and f.pinned not in _DATA
      ]
      if rank < len(places) and (name, i, s) not in taken:
        yield i, s, places[-1 - rank]


def _write(
  unit: np.ndarray,
  phases: np.ndarray,
  positions: np.ndarray,
  pair: int,
  axis: int,
  others: Sequence[int],
) -> None:
  """Writes the units of a segment into those of a leaf.

  Args:
    unit: the units of the leaf.
    phases: ``[*sizes of factors of other axes, *those of the segment]``.
    positions: those of the segment along the axis, ``[*sizes of factors]``.
    pair: the dimension of the units that is missing in the phases.
    axis: the axis.
    others: the other axes.
  """
  parts = np.stack([2 * phases, 2 * phases + 1], pair)
  first = np.moveaxis(unit, [*others, axis], range(len(others) + 1))
  rows = first.reshape(first.shape[: len(others) + 1])  # a view
  rows[..., positions.ravel()] = parts.reshape(*rows.shape[:-1], -1)


class _Use(NamedTuple):
  """How the function uses a leaf.

  Attributes:
    kept: the axes that its first products do not contract.
    stacked: whether it uses only slices of the leaf, in the steps of a scan.
  """

  kept: set[int]
  stacked: bool


def _uses(
  facts: axis_facts.Facts, leaves: Mapping[int, str]
) -> dict[str, _Use]:
  """Returns how the function uses leaves, by their numbers."""
  follow = ('transpose', 'convert_element_type', 'copy', 'loop take')
  place: dict[int, tuple[int, list[int]]] = {}
  kept: dict[int, set[int]] = {}
  for value in facts.leaves:
    if value.number in leaves:
      place[value.number] = value.number, [*range(len(value.axes))]
      kept[value.number] = {*range(len(value.axes))}
  stacked = dict.fromkeys(leaves, True)
  for step in facts.steps:
    for k, value in enumerate(step.args):
      if value.number not in place or value.constant is not None:
        continue
      leaf, dims = place[value.number]
      if value.number == leaf and step.name != 'loop take':
        stacked[leaf] = False
      if step.name == 'dot_general':
        gone = step.eqn.params['dimension_numbers'][0][k]
        kept[leaf] -= {dims[i] for i in gone}
      elif step.name in follow:
        if step.name == 'transpose':
          dims = [dims[i] for i in step.eqn.params['permutation']]
        elif step.name == 'loop take':
          kept[leaf] -= {dims[0]}
          dims = dims[1:]
        place[step.results[k].number] = leaf, dims
  return {name: _Use(kept[n], stacked[n]) for n, name in leaves.items()}
