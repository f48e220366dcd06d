r"""The cost of pairing a unit of one model with a unit of another.

With all other groups carried to the fixed widths, a block holds the weights
:math:`f_i` of unit i of the fixed model and :math:`m_j` of unit j of the moving
one. Axes that are averaged and axes that are divided cost

.. math:: C_{ij} = \sum \lVert f_i - m_j \rVert^2 + \sum
  \Big\lVert \frac{f_i}{\mu_i} - \frac{m_j}{\nu_j} \Big\rVert^2

where :math:`\mu` and :math:`\nu` are the masses of the units. A sum over units,
:math:`\sum_i f_i h_i = \sum_i \mu_i (f_i / \mu_i) h_i`, is an integral over
their masses, and weights per mass do not depend on the width. For a permutation
the total cost is the squared distance of the models.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from wsl.align import _blocks
from wsl.align._transport import blocks as blocks_lib
from wsl.align._transport import carry, contraction

_Labelled: TypeAlias = tuple[np.ndarray, contraction.Labels]


class Masses(NamedTuple):
  """Masses of the units of a group.

  Attributes:
    fixed: ``[*outer, n]``, of mean 1 over the units.
    moving: ``[*outer, m]``, of sum n.
  """

  fixed: np.ndarray
  moving: np.ndarray


class _Parts(NamedTuple):
  """How the axes of a block enter the cost of one of its groups.

  Attributes:
    paired: the axis of the group and its free outer axes.
    weighted: axes whose coupling depends on paired ones, or on which such a
      coupling depends: the cost is the mean over the coupling.
    carried: the other free axes.
  """

  paired: list[int]
  weighted: list[int]
  carried: list[int]


def cost(
  block: blocks_lib.Block,
  group: str,
  couplings: blocks_lib.Couplings,
  maps: Mapping[str, carry.Maps],
  masses: Mapping[str, Masses],
) -> np.ndarray:
  """Returns the costs of a group in a block.

  Args:
    block: a block that has the group.
    group: its name. If it occurs twice, each occurrence is paired in turn, with
      the other one carried.
    couplings: of all groups.
    maps: the matrices of all couplings.
    masses: of all groups.

  Returns:
    ``[*outer, *free outer, n, m]``: for each pair of outer indices, the costs
    of all pairs of units.
  """
  places = [i for i, axis in enumerate(block.axes) if axis.group == group]
  costs = [_cost_at(block, i, couplings, maps, masses) for i in places]
  return sum(costs[1:], costs[0])


def _cost_at(
  block: blocks_lib.Block,
  place: int,
  couplings: blocks_lib.Couplings,
  maps: Mapping[str, carry.Maps],
  masses: Mapping[str, Masses],
) -> np.ndarray:
  """Returns the costs of pairing the units of one axis."""
  axes = block.axes
  parts = _split(axes, place)
  x, on_x = block.fixed, tuple(range(len(axes)))
  y, on_y = blocks_lib.apply(
    block.moving,
    blocks_lib.moving_labels(axes),
    axes,
    parts.carried,
    carry.matrices(axes, parts.carried, maps),
  )
  kept = [*parts.paired, *parts.weighted]
  for i in kept:
    if axes[i].contracted:
      mass, labels = masses[axes[i].group], axes[i].outer
      outer = tuple(~o if axes[o].group else o for o in labels)
      x = x / _spread(mass.fixed, (*labels, i), on_x)
      y = y / _spread(mass.moving, (*outer, ~i), on_y)
  weights = {i: couplings[axes[i].group] for i in parts.weighted}
  out = axes[place].labels(place)
  # With T the coupling of the weighted axes, the cost is sum T (x - y)^2 =
  # sum T x^2 + sum T y^2 - 2 sum T x y; the first two need only the sums of
  # squares over all other axes.
  pinned = {o for i in kept for o in axes[i].outer if not axes[o].group}
  new, old = tuple(kept), tuple(~i for i in kept)
  squares_x = contraction.sum_to(x * x, on_x, (*new, *pinned))
  squares_y = contraction.sum_to(y * y, on_y, (*old, *pinned))
  ones_x, ones_y = _ones(x, on_x, new), _ones(y, on_y, old)

  def total(fixed: _Labelled, moving: _Labelled) -> np.ndarray:
    moved = blocks_lib.apply(*moving, axes, parts.weighted, weights)
    return contraction.contract(*fixed, *moved, out)

  return (
    total(squares_x, ones_y)
    + total(ones_x, squares_y)
    - 2 * total((x, on_x), (y, on_y))
  )


def _split(axes: tuple[blocks_lib.Axis, ...], place: int) -> _Parts:
  """Sorts the axes of a block by how they enter the cost of one axis."""
  paired = [*axes[place].free_outer, place]
  free = [i for i, axis in enumerate(axes) if axis.group and i not in paired]
  weighted: set[int] = set()
  while True:
    bound = {*paired, *weighted}
    needed = {o for i in weighted for o in axes[i].free_outer}
    found = {i for i in free if bound & {*axes[i].free_outer} or i in needed}
    if found == weighted:
      break
    weighted = found
  carried = [i for i in free if i not in weighted]
  return _Parts(paired, sorted(weighted), carried)


def _spread(
  table: Any, labels: contraction.Labels, onto: contraction.Labels
) -> Any:
  """Transposes a table to the labels of another array, to divide it."""
  return _blocks.spread(table, [*map(onto.index, labels)], len(onto), np)


def _ones(
  x: np.ndarray, labels: contraction.Labels, kept: contraction.Labels
) -> _Labelled:
  """Returns ones for some of the labels of an array."""
  kept = tuple(n for n in labels if n in kept)
  return np.ones([x.shape[labels.index(n)] for n in kept]), kept
