r"""Quadratic assignment for a group that occurs twice in one tensor.

For a recurrent matrix both axes are permuted by the same P, and the agreement
is quadratic in it:

.. math:: f(P) = \langle L, P \rangle + \mathrm{tr}(W_A^\top P W_B P^\top),
  \qquad \nabla f(P) = L + W_A P W_B^\top + W_A^\top P W_B.

Frank-Wolfe maximises f over doubly stochastic matrices: it solves the linear
assignment problem of the gradient, then searches exactly along the segment to
that permutation. It starts from the current order and from the barycentre of
all permutations; the results are rounded to the nearest permutation. Orthogonal
maps are found in the same way: their convex hull is the ball of spectral norm
1, with the barycentre 0, on which the polar factor maximises a linear function.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from wsl.align._match import block_pairs, weight_gains

_MAX_STEPS = 30
_TOLERANCE = 1e-12  # of the slope, relative to the gradient's entries


def solve(
  blocks: list[block_pairs.BlockPair],
  group: str,
  *,
  outer: block_pairs.Names,
  outer_of: dict[str, block_pairs.Names],
  solver: Callable[[Any], Any],
  matrix: bool,
) -> list[np.ndarray]:
  """Proposes tables for a group; the caller keeps one only if it is better.

  Args:
    blocks: all pairs of blocks that have the group.
    group: a group.
    outer: the factors on which its permutation depends.
    outer_of: for each group the factors on which its permutation depends.
    solver: from gains to a table.
    matrix: whether tables are matrices.

  Returns:
    Tables ``[*outer, n]`` or ``[*outer, n, n]`` relative to the current order.

  Reference: Vogelstein et al., "Fast approximate quadratic programming for
    graph matching", 2015, PLOS ONE, arXiv:1112.5507.
  """
  linear_blocks = [b for b in blocks if b.names.count(group) == 1]
  quadratic_blocks = [b for b in blocks if b.names.count(group) > 1]
  linear: np.ndarray = np.zeros(())
  if linear_blocks:
    linear = _gradient(linear_blocks, group, outer)

  def gradient_at(order: np.ndarray) -> np.ndarray:
    """Returns the gradient at a permutation."""
    permuted = [
      block_pairs.permute_moving(block, {group: order}, outer_of)
      for block in quadratic_blocks
    ]
    # The permuted blocks hold P W_B P^T, so that their gains are
    # M = W_A P W_B^T P^T + ...; the gradient is M P, a gather of columns.
    gains = _gradient(permuted, group, outer)
    if matrix:
      return linear + gains @ order
    inverse = np.argsort(order, axis=-1)[..., None, :]
    return linear + np.take_along_axis(gains, inverse, -1)

  averaged = _averaged(quadratic_blocks, group)
  at_barycentre = linear + _gradient(averaged, group, outer) * (not matrix)
  n = at_barycentre.shape[-1]
  eye = np.broadcast_to(np.eye(n), at_barycentre.shape)
  identity = np.broadcast_to(
    np.arange(n, dtype=np.int32), at_barycentre.shape[:-1]
  )
  start = eye if matrix else identity
  uniform = np.full_like(at_barycentre, 0 if matrix else 1 / n)
  # The identity keeps a current order that is nearly right; the barycentre
  # favours no order.
  return [
    _frank_wolfe(eye, gradient_at(start), gradient_at, solver),
    _frank_wolfe(uniform, at_barycentre, gradient_at, solver),
  ]


def _frank_wolfe(
  point: np.ndarray,
  gradient: np.ndarray,
  gradient_at: Callable[[np.ndarray], np.ndarray],
  solver: Callable[[Any], Any],
) -> np.ndarray:
  """Maximises from a point ``[*outer, n, n]``; returns a table."""
  for _ in range(_MAX_STEPS):
    vertex = np.asarray(solver(gradient))
    matrix = block_pairs.is_matrix(vertex)
    direction = vertex if matrix else np.eye(gradient.shape[-1])[vertex]
    direction = direction - point
    # The gradient is affine: at point + t * direction it is gradient + t *
    # change, hence f(t) = f(0) + slope * t + curvature * t^2. If the parabola
    # is concave its maximum is at -slope / (2 curvature), else at t = 1.
    change = gradient_at(vertex) - gradient
    slope = (gradient * direction).sum((-2, -1), keepdims=True)
    curvature = (change * direction).sum((-2, -1), keepdims=True) / 2
    scale = np.abs(gradient).sum((-2, -1), keepdims=True)
    if (slope <= _TOLERANCE * scale).all():
      break
    concave = curvature < 0
    maximum = -slope / np.where(concave, 2 * curvature, 1)
    step = np.where(concave, np.clip(maximum, 0, 1), 1)
    point, gradient = point + step * direction, gradient + step * change
  return np.asarray(solver(point))


def _gradient(
  blocks: list[block_pairs.BlockPair], group: str, outer: block_pairs.Names
) -> np.ndarray:
  """Returns the gains of a group in float64, ``[*outer, n, n]``."""
  return weight_gains.gains(blocks, group, outer).astype(np.float64)


def _averaged(
  blocks: list[block_pairs.BlockPair], group: str
) -> list[block_pairs.BlockPair]:
  """Averages the moving blocks over all but one of a group's axes.

  At the barycentre P = 1 1^T / n, the term W_A P W_B^T is the outer product of
  W_A's row sums and W_B's row means.
  """
  result = []
  for names, fixed, moving in blocks:
    axes = block_pairs.axes_of(names, group)
    for axis in axes:
      others = tuple(i for i in axes if i != axis)
      result.append(
        block_pairs.BlockPair(
          weight_gains.unique_labels(names, axis),
          fixed.sum(others, keepdims=True),
          moving.mean(others, keepdims=True),
        )
      )
  return result
