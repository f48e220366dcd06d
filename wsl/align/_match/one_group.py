"""The best table of one group: by gains, with signs, or by ranks."""

from collections.abc import Callable
from typing import Any

import numpy as np

from wsl.align._match import block_pairs, schedule, weight_gains


def by_gain(
  gains: np.ndarray, solver: Callable[[Any], Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the best table, the total gains ``[*outer]``, and their increase.

  The identity is the current order: its total is the trace.
  """
  order = np.asarray(solver(gains))
  diagonal = np.diagonal(gains, axis1=-2, axis2=-1)
  before = np.asarray(diagonal.sum(-1, dtype=np.float64))
  if block_pairs.is_matrix(order):
    # Near the maximum the difference of the totals would be rounding.
    change = order - np.eye(order.shape[-1])
    increase = (gains.astype(np.float64) * change).sum((-1, -2))
  else:
    after = np.take_along_axis(gains, order[..., None], -1)[..., 0]
    increase = after.sum(-1, dtype=np.float64) - before
  return order, before, np.asarray(increase)


def is_vector(
  blocks: list[block_pairs.BlockPair], outer: block_pairs.Names
) -> bool:
  """Returns True for one block that has one axis beside the outer ones."""
  return len(blocks) == 1 and len({*blocks[0].names} - {*outer}) == 1


def by_rank(
  block: block_pairs.BlockPair, group: str, outer: block_pairs.Names
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Matches scalar units by sorting both sides; returns as by gain.

  If each unit is one number, the gains are the products x_i y_j, and by the
  rearrangement inequality pairing equal ranks maximises their sum.
  """
  axes = [*map(block.names.index, (*outer, group))]
  x, y = (v.transpose(axes) for v in (block.fixed, block.moving))
  indices = np.empty(x.shape, np.int32)
  ranked = np.argsort(y, -1, kind='stable').astype(np.int32)
  np.put_along_axis(indices, np.argsort(x, -1, kind='stable'), ranked, -1)
  matched = np.take_along_axis(y, indices, -1)
  sums = [np.asarray((x * v).sum(-1, dtype=np.float64)) for v in (y, matched)]
  return indices, sums[0], np.asarray(sums[1] - sums[0])


def has_signs(move: schedule.Move, blocks: list[block_pairs.BlockPair]) -> bool:
  """Returns True if units are matched with their signs only, one in a block."""
  signs = move.matched - {move.group}
  most = max((len(signs & {*b.names}) for b in blocks), default=0)
  return bool(signs) and signs == move.signs and most == 1


def with_signs(
  move: schedule.Move,
  blocks: list[block_pairs.BlockPair],
  solvers: block_pairs.Solvers,
) -> tuple[block_pairs.Tables, np.ndarray, np.ndarray]:
  r"""Matches units and their signs at once.

  .. math:: \max_{\pi, s} \sum_i S_0[i, \pi(i)] + \sum_a s_a(i) S_a[i, \pi(i)]
    = \max_\pi \sum_i \Big( S_0 + \sum_a |S_a| \Big)[i, \pi(i)]

  Args:
    move: the move.
    blocks: the blocks in which the units occur once.
    solvers: for each group a function from gains to its table.

  Returns:
    The tables, the agreement ``[*outer]`` before, and its increase.
  """
  group, outer = move.group, move.outer
  gains = {}
  for sign in ('', *sorted(move.signs)):
    mine = [b for b in blocks if {*b.names} & move.signs == {sign} - {''}]
    if mine:
      gains[sign] = weight_gains.gains(mine, group, outer)
  total = sum(np.abs(x) if sign else x for sign, x in gains.items())
  order = np.asarray(solvers[group](total))
  at = lambda x: np.take_along_axis(x, order[..., None], -1)[..., 0]
  tables = {group: order}
  for sign, x in gains.items():
    if sign:
      tables[sign] = np.where(at(x) < 0, -1.0, 1.0)[..., None, None]
  diagonals = [np.diagonal(x, axis1=-2, axis2=-1) for x in gains.values()]
  before = np.asarray(sum(x.sum(-1, dtype=np.float64) for x in diagonals))
  after = at(total).sum(-1, dtype=np.float64)
  return tables, before, np.asarray(after - before)
