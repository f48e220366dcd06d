r"""Assignments for a group that occurs twice in a tensor.

The gain of such a group is quadratic in its permutation, as that of a recurrent
matrix, :math:`\langle W_A, P W_B P^\top \rangle`. Frank-Wolfe climbs from the
present order and from the barycentre of all orders, and rounds to the nearest.
"""

from collections.abc import Callable

import numpy as np

from wsl.align import _assignment
from wsl.align._match import weight_gains

_STEPS = 30
_FLAT = 1e-12


def solve(
  blocks: list[weight_gains.Block],
  group: str,
  *,
  lead: weight_gains.Names,
  outers: dict[str, weight_gains.Names],
  solver: _assignment.Solver,
) -> list[np.ndarray]:
  """Proposes orders for a group; the caller takes one that is better.

  Args:
    blocks: all blocks that have the group.
    group: a group.
    lead: the factors that it depends on.
    outers: for each group the factors it depends on.
    solver: an assignment solver.

  Returns:
    Tables ``[*lead, n]`` relative to the present order.

  Reference: Vogelstein et al., "Fast approximate quadratic programming for
    graph matching", 2015, PLOS ONE, arXiv:1112.5507.
  """
  once = [b for b in blocks if b.names.count(group) == 1]
  again = [b for b in blocks if b.names.count(group) > 1]
  linear = _derivative(once, group, lead) if once else np.zeros(())

  def at(order: np.ndarray) -> np.ndarray:
    """Returns the derivative where a permutation is."""
    moved = [
      weight_gains.moved(block, {group: order}, outers) for block in again
    ]
    back = np.argsort(order, axis=-1)[..., None, :]
    found = _derivative(moved, group, lead)
    return linear + np.take_along_axis(found, back, -1)

  middle = linear + _derivative(_averaged(again, group), group, lead)
  n = middle.shape[-1]
  eye = np.broadcast_to(np.eye(n), middle.shape)
  stay = np.broadcast_to(np.arange(n, dtype=np.int32), middle.shape[:-1])
  starts = [(eye, at(stay)), (np.full_like(middle, 1 / n), middle)]
  return [_climb(place, slope, at, solver) for place, slope in starts]


def _climb(
  place: np.ndarray,
  slope: np.ndarray,
  at: Callable[[np.ndarray], np.ndarray],
  solver: _assignment.Solver,
) -> np.ndarray:
  """Follows vertices uphill, each step as far as the parabola rises."""
  for _ in range(_STEPS):
    order = np.asarray(solver(slope))
    way = np.eye(slope.shape[-1])[order] - place
    change = at(order) - slope
    rise = (slope * way).sum((-2, -1), keepdims=True)
    bend = (change * way).sum((-2, -1), keepdims=True) / 2
    if (rise <= _FLAT * np.abs(slope).sum((-2, -1), keepdims=True)).all():
      break
    top = -rise / np.where(bend < 0, 2 * bend, 1)
    step = np.where(bend < 0, np.clip(top, 0, 1), 1)
    place, slope = place + step * way, slope + step * change
  return np.asarray(solver(place))


def _derivative(
  blocks: list[weight_gains.Block], group: str, lead: weight_gains.Names
) -> np.ndarray:
  return np.asarray(weight_gains.gains(blocks, group, lead), np.float64)


def _averaged(
  blocks: list[weight_gains.Block], group: str
) -> list[weight_gains.Block]:
  """Averages over all orders of a group on every axis of it but one."""
  result = []
  for names, fixed, moving in blocks:
    places = [i for i, name in enumerate(names) if name == group]
    for place in places:
      others = tuple(i for i in places if i != place)
      result.append(
        weight_gains.Block(
          weight_gains.unique(names, place),
          fixed.sum(others, keepdims=True),
          moving.mean(others, keepdims=True),
        )
      )
  return result
