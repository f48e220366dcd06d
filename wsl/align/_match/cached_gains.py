"""Gains of groups that are kept between the visits of an ascent."""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from wsl.align._match import block_pairs, schedule, weight_gains
from wsl.align._solvers import large, row_blocks


class Gains(NamedTuple):
  """The gains of a group.

  Attributes:
    array: ``[n, n]``.
    blocks: the indices of the block pairs whose products it sums.
  """

  array: np.ndarray
  blocks: frozenset[int]


GainCache: TypeAlias = dict[str, Gains]  # by group
# Units whose change is computed at a time: at least so many, or 1/32 of the
# group, and a quarter of it if they have no more than so many entries.
_UNITS, _ENTRIES = 16, 2**19


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
    copies.append(2 * n**2 if n < large.LARGE else 0)
  model, total = sum(block.fixed.size for block in blocks), sum(sizes.values())
  if total + max(copies) <= model + max(sizes.values(), default=0):
    return total
  return model - max(copies)


def complete(
  cache: GainCache,
  move: schedule.Move,
  blocks: list[block_pairs.BlockPair],
  room: int,
) -> np.ndarray:
  """Returns the gains of a move's group from all its blocks.

  Products that the cache has are not computed again. The gains are kept if
  there is room.

  Args:
    cache: gains of groups.
    move: of a group that depends on none and occurs once in its blocks.
    blocks: all block pairs.
    room: the number of entries that all gains in the cache may have.
  """
  held = cache.get(move.group)
  known = held.blocks if held else frozenset()
  missing = [blocks[i] for i in move.blocks if i not in known]
  array = held.array if held else None
  if missing or array is None:
    array = weight_gains.gains(missing, move.group, (), array)
  others = sum(x.array.size for n, x in cache.items() if n != move.group)
  if array.size + others <= room:
    cache[move.group] = Gains(array, known | {*move.blocks})
  return array


def permute(cache: GainCache, group: str, table: np.ndarray) -> None:
  """Updates the gains of a group for a move of the group itself: S P^T."""
  array = cache[group].array
  if block_pairs.is_matrix(table):
    array = array @ table.T.astype(array.dtype)
    cache[group] = cache[group]._replace(array=array)
  else:
    block_pairs.permute_in_place(array, table, 1)


def update(
  cache: GainCache, groups: list[str], change: block_pairs.BlockPair
) -> None:
  """Adds the gains of a change of a moving block to those of some groups.

  Gains are linear in the moving block, so this is the change of the gains.
  """
  for group in groups:
    held = cache[group]
    array = weight_gains.gains([change], group, (), held.array)
    cache[group] = held._replace(array=array)


def changes(
  block: block_pairs.BlockPair, order: np.ndarray, axis: int
) -> Iterator[block_pairs.BlockPair]:
  """Yields the change of a moving block, some of the moved units at a time."""
  units = np.flatnonzero(order != np.arange(len(order)))
  n = len(order)
  some = min(n // 4, _ENTRIES * n // block.moving.size)
  length = max(_UNITS, n // 32, some)
  moving, fixed = (
    block_pairs.around(x, axis) for x in (block.moving, block.fixed)
  )
  for start in range(0, len(units), length):
    part = units[start : start + length]
    shape = (
      *block.moving.shape[:axis],
      len(part),
      *block.moving.shape[axis + 1 :],
    )
    old, change = np.empty(shape, fixed.dtype), np.empty(shape, moving.dtype)
    _fill(moving, order[part], part, block_pairs.around(change, axis))
    _fill(fixed, part, None, block_pairs.around(old, axis))
    yield block._replace(fixed=old, moving=change)


def _fill(
  x: np.ndarray,
  units: np.ndarray,
  subtracted: np.ndarray | None,
  result: np.ndarray,
) -> None:
  """Writes some units of ``[before, n, after]``, less others, to a result."""

  def fill(rows: slice) -> None:
    x[rows].take(units, axis=1, out=result[rows], mode='wrap')
    if subtracted is not None:
      result[rows] -= x[rows].take(subtracted, axis=1, mode='wrap')

  row_blocks.run(fill, len(x), entries=2 * result[0].size)
