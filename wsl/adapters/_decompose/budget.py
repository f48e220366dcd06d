"""Ranks of leaves: by a share of the energy, or by a number of parameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def needed(squares: Any, total: Any, energy: Any) -> Any:
  """Marks the directions that a share of the squared norm needs.

  Args:
    squares: squared singular values ``[..., k]`` in descending order.
    total: the squared norms, ``[..., 1]``.
    energy: the share, 0 < energy <= 1; infinity for all that are not zero.
  """
  # A direction counts as long as those before it represent too little.
  before = squares.cumsum(-1) - squares
  return (squares > 0) & (before < energy * total)


def by_energy(squares: np.ndarray, energy: float | None) -> int:
  """Returns the least rank with a share of the squared norm of each matrix.

  Args:
    squares: squared singular values ``[G, k]`` in descending order.
    energy: the share, 0 < energy <= 1; None for all that is not zero.
  """
  if energy is None:
    return int((squares > 0).sum(-1).max(initial=0))
  wanted = needed(squares, squares.sum(-1, keepdims=True), energy)
  return int(wanted.sum(-1).max(initial=0))


def by_parameters(
  squares: Mapping[str, np.ndarray],
  costs: Mapping[str, int],
  parameters: int,
) -> dict[str, int]:
  r"""Returns the ranks that leave out the least for a number of parameters.

  .. math:: \max_{r} \sum_l \sum_{i \le r_l} s_{l,i}^2
    \quad\text{with}\quad \sum_l c_l r_l \le P

  Directions are taken by :math:`s_{l,i}^2 / c_l`, the largest first, which is
  the best choice up to the directions of one leaf: those of a leaf come in
  descending order, so that a choice is a rank for each leaf. A leaf of which a
  direction does not fit is closed, others go on.

  Args:
    squares: squared singular values ``[k]`` of each leaf, in descending order.
    costs: the parameters c of one rank of each leaf, inputs and outputs.
    parameters: P.
  """
  names = list(squares)
  gains = np.concatenate([squares[k] / costs[k] for k in names] or [np.ones(0)])
  leaves = np.repeat(np.arange(len(names)), [len(squares[k]) for k in names])
  ranks = dict.fromkeys(names, 0)
  closed: set[str] = set()
  # Stable, so that equal directions of a leaf stay in order.
  for i in np.argsort(-gains, kind='stable'):
    name = names[leaves[i]]
    if gains[i] == 0 or len(closed) == len(names):
      break
    if name in closed:
      continue
    if costs[name] > parameters:
      closed.add(name)
      continue
    parameters -= costs[name]
    ranks[name] += 1
  return ranks
