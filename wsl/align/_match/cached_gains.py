"""Gains of groups that are kept between the visits of an ascent."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from wsl.align import _assignment
from wsl.align._match import block_pairs, schedule, weight_gains

GainCache: TypeAlias = dict[str, np.ndarray]  # gains ``[n, n]`` by group
_UNITS = 16  # whose change is computed at a time, or a sixteenth of a group


def room(
  moves: list[schedule.Move], blocks: list[block_pairs.BlockPair]
) -> int:
  """Returns the number of entries that a cache of all groups' gains may have.

  Beyond the inputs, an ascent needs the permuted model, the cached gains, those
  of the current group if they are not in the cache, and the copy of the solver
  (in float64; none for large groups whose candidates suffice). With this room
  these are at most two models and the largest gains.
  """
  sizes, copies = {}, [0]
  for move in moves:
    if move.outer or move.quadratic or len(move.matched) > 1:
      continue
    block = blocks[move.blocks[0]]
    n = block.fixed.shape[block.names.index(move.group)]
    sizes[move.group] = n**2
    copies.append(2 * n**2 if n < _assignment.LARGE else 0)
  model, total = sum(block.fixed.size for block in blocks), sum(sizes.values())
  if total + max(copies) <= model + max(sizes.values(), default=0):
    return total
  return model - max(copies)


def moved(gains: np.ndarray, table: np.ndarray) -> np.ndarray:
  """Returns the gains after a move of the group itself: S P^T."""
  if block_pairs.is_matrix(table):
    return gains @ table.T.astype(gains.dtype)
  block_pairs.permute_in_place(gains, table, 1)
  return gains


def update(
  cache: GainCache, groups: list[str], change: block_pairs.BlockPair
) -> None:
  """Adds the gains of a change of a moving block to those of some groups.

  Gains are linear in the moving block, so this is the change of the gains.
  """
  for group in groups:
    cache[group] = weight_gains.gains([change], group, (), cache[group])


def changes(
  block: block_pairs.BlockPair, order: np.ndarray, axis: int
) -> Iterator[block_pairs.BlockPair]:
  """Yields the change of a moving block, some of the moved units at a time."""
  units = np.flatnonzero(order != np.arange(len(order)))
  length = max(_UNITS, len(order) // 16)
  for start in range(0, len(units), length):
    part = units[start : start + length]
    change = block.moving.take(order[part], axis=axis)
    change -= block.moving.take(part, axis=axis)
    yield block._replace(fixed=block.fixed.take(part, axis=axis), moving=change)
