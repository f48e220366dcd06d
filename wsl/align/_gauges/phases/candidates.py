"""Pairs of entries of leaves on which a phase may act."""

from collections.abc import Iterator, Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np

from wsl.align import _blocks, _symmetry
from wsl.align._find import axis_facts, axis_tree
from wsl.align._find.rules import elementwise
from wsl.align._gauges.phases import coefficients, forms, moves

_LIMIT = 1 << 17  # entries of a leaf that are distinguished
_FOLLOW = (
  *elementwise.ELEMENTWISE, 'concatenate', 'loop tie', 'slice', 'split',
)  # fmt: skip
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
    stacks: the factors that the steps of scans index, if the function uses the
      leaf there only.
    phases: the numbers of the phases, ``[*sizes of over]``.
  """

  leaf: str
  axis: int
  segment: int
  pair: int
  over: tuple[str, ...]
  stacks: tuple[str, ...]
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
    single = [i for i in sorted(use.kept - axes) if len(plan[i]) == 1]
    others = _distinguished(shape, axis, single)
    dims = frozenset({axis, *others})
    # Entries outside of the pairs are fixed.
    unit = np.full(moves.sizes(shape, dims), forms.FIXED)
    parts = symmetry.layout(name)[axis]
    places = _blocks.to_blocks(np.arange(shape[axis]), (parts,))
    outside = [f for i in others for f in plan[i][0]]
    stacks = _stacks(plan[: use.stacks])
    for _, segment, pair in found:
      positions, factors = places[segment]
      # One phase for each index of all factors but the pair.
      over = [*outside, *factors[:pair], *factors[pair + 1 :]]
      sizes = [f.size for f in over]
      phases = start + np.arange(math.prod(sizes)).reshape(sizes)
      start += phases.size
      _write(unit, phases, positions, len(outside) + pair, axis, others)
      names = tuple(f.name for f in over)
      out.append(Candidate(name, axis, segment, pair, names, stacks, phases))
    one = np.zeros((1,) * len(shape), np.int64)
    term = forms.Term(unit, one + forms.source(c, name), one + coefficients.ONE)
    c.states[leaves[name].number] = forms.Form(shape, dims, (term,))
  return out


def _distinguished(
  shape: moves.Shape, axis: int, others: Sequence[int]
) -> list[int]:
  """Returns the axes along which entries are distinguished, besides one.

  Above the limit of entries, the longest are left out.
  """
  kept = sorted(others, key=lambda i: shape[i])
  while kept and moves.entries(shape, frozenset({axis, *kept})) > _LIMIT:
    kept.pop()
  return sorted(kept)


def _stacks(plan: _symmetry.Plan) -> tuple[str, ...]:
  """Returns the factors of axes, if each of them is one factor; else none."""
  if any(len(axis) > 1 or len(axis[0]) != 1 for axis in plan):
    return ()
  return tuple(axis[0][0].name for axis in plan)


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
    stacks: of how many first axes it uses only slices, in the steps of scans.
  """

  kept: set[int]
  stacks: int


def _uses(
  facts: axis_facts.Facts, leaves: Mapping[int, str]
) -> dict[str, _Use]:
  """Returns how the function uses leaves, by their numbers."""
  # Arrays computed from a leaf: the leaf, its axes, and the number of scans.
  place: dict[int, tuple[int, list[int], int]] = {}
  kept: dict[int, set[int]] = {}
  stacks: dict[int, int] = {}
  for value in facts.leaves:
    if value.number in leaves:
      rank = len(value.axes)
      place[value.number] = value.number, [*range(rank)], 0
      kept[value.number] = {*range(rank)}
  for step in facts.steps:
    for k, value in enumerate(step.args):
      if value.number not in place or value.constant is not None:
        continue
      leaf, dims, depth = place[value.number]
      results = (
        step.results[k:] if step.name.startswith('loop') else step.results
      )
      if step.name == 'loop take':
        kept[leaf] -= {dims[0]}
        place[results[0].number] = leaf, dims[1:], depth + 1
        continue
      if step.name != 'loop tie':
        stacks[leaf] = min(depth, stacks.get(leaf, depth))
      if step.name == 'dot_general':
        gone = step.eqn.params['dimension_numbers'][0][k]
        kept[leaf] -= {dims[i] for i in gone}
      elif step.name == 'transpose':
        dims = [dims[i] for i in step.eqn.params['permutation']]
        place[results[0].number] = leaf, dims, depth
      elif step.name in _FOLLOW:
        for result in results:
          if len(result.axes) == len(dims):
            place.setdefault(result.number, (leaf, dims, depth))
  return {n: _Use(kept[k], stacks.get(k, 0)) for k, n in leaves.items()}
