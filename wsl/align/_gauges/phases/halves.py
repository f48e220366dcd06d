"""Two equal segments of an axis, written as one with a factor of size 2.

The real parts of the numbers that RoPE rotates may follow the imaginary parts
as segments of their own, ``heads * (f + f + rest)``. A phase acts on a product,
``heads * (2 * f + rest)``. Both describe the same permutations, as f is pinned.
"""

from collections.abc import Collection, Sequence
import dataclasses
import itertools
from typing import NamedTuple

from wsl.align import _symmetry

_REASON = 'real and imaginary parts'


class Joined(NamedTuple):
  """A symmetry with joined segments.

  Attributes:
    symmetry: the symmetry.
    places: by leaf, axis and old segment, the new segment and the position of
      the factor of size 2, -1 if there is none.
  """

  symmetry: _symmetry.Symmetry
  places: dict[tuple[str, int, int], tuple[int, int]]


def join(
  symmetry: _symmetry.Symmetry,
  only: Collection[tuple[str, int]] | None = None,
) -> Joined:
  """Joins equal adjacent segments that end with a pinned factor.

  Args:
    symmetry: a symmetry without actions.
    only: the leaves and axes to change; all by default.
  """
  factors = list(symmetry.factors)
  runs = list(symmetry.interleaved)
  places: dict[tuple[str, int, int], tuple[int, int]] = {}
  axes = []
  for leaf, plan in symmetry.axes:
    rows = []
    for i, axis in enumerate(plan):
      own = [run for run in runs if (run.leaf, run.axis) == (leaf, i)]
      chosen = only is None or (leaf, i) in only
      starts = _equal(symmetry, axis, own) if chosen else []
      # heads * (f + f) becomes heads * 2 * f: the factor of size 2 follows the
      # factors outside of the sum.
      segments: list[_symmetry.Segment] = []
      for s, segment in enumerate(axis):
        if s - 1 in starts:
          places[leaf, i, s] = len(segments) - 1, places[leaf, i, s - 1][1]
          continue
        at = _shared(own, s) if s in starts else -1
        places[leaf, i, s] = len(segments), at
        if at >= 0:
          name = f'{leaf}:{i}.{s}/2'
          factors.append(_symmetry.Factor(name, 2, _REASON))
          segment = (*segment[:at], name, *segment[at:])
        segments.append(segment)
      if starts:
        runs = [run for run in runs if run not in own]
        runs += _moved(own, starts)
      rows.append(tuple(segments))
    axes.append((leaf, tuple(rows)))
  found = dataclasses.replace(
    symmetry,
    factors=tuple(factors),
    axes=tuple(axes),
    interleaved=tuple(runs),
  )
  return Joined(found, places)


def _equal(
  symmetry: _symmetry.Symmetry,
  axis: _symmetry.Axis,
  runs: Sequence[_symmetry.Interleaved],
) -> list[int]:
  """Returns the first of each pair of segments to join."""
  starts: list[int] = []
  inside = lambda s: [r for r in runs if r.first <= s < r.first + r.number]
  for s, (x, y) in enumerate(itertools.pairwise(axis)):
    taken = starts and starts[-1] == s - 1
    if taken or x != y or inside(s) != inside(s + 1):
      continue
    own = x[_shared(runs, s) :]
    if not own or symmetry.factor[own[-1]].pinned:
      starts.append(s)
  return starts


def _shared(runs: Sequence[_symmetry.Interleaved], s: int) -> int:
  """Returns the number of factors outside of the innermost run."""
  around = [r.shared for r in runs if r.first <= s < r.first + r.number]
  return max(around, default=0)


def _moved(
  runs: Sequence[_symmetry.Interleaved], starts: Sequence[int]
) -> list[_symmetry.Interleaved]:
  """Returns the runs after segments were joined; one segment is no run."""
  found = []
  for run in runs:
    first = run.first - sum(s < run.first for s in starts)
    stop = run.first + run.number
    number = run.number - sum(run.first <= s < stop for s in starts)
    if number > 1:
      found.append(run._replace(first=first, number=number))
  return found
