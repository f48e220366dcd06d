"""The schedule of weight matching: which groups are matched together.

A move matches one group, with those that depend on it where possible (heads
with the units inside them), and keeps all other groups in their current order.
"""

import math
from typing import NamedTuple

from wsl.align._gauges import views
from wsl.align._match import block_pairs, nested_heads

_MAX_GRAM = 2**28  # entries of a nested gram for each outer index


class Move(NamedTuple):
  """A group to match, possibly together with those that depend on it.

  Attributes:
    group: its name.
    matched: the groups that are matched at once, including the group.
    dependents: the group and all that depend on it; their tables change with
      its order.
    outer: the factors on which its permutation depends; fixed in this move.
    blocks: the indices of the block pairs that have the group.
    quadratic: whether the group is matched by Frank-Wolfe, because it occurs
      twice in a block. Other moves ignore such blocks when they solve, and
      count them when they compare the agreements.
    matrix: whether its table consists of matrices, not indices.
    signs: the matched groups that are signs of its units.
  """

  group: str
  matched: frozenset[str]
  dependents: frozenset[str]
  outer: block_pairs.Names
  blocks: tuple[int, ...]
  quadratic: bool
  matrix: bool = False
  signs: frozenset[str] = frozenset()


def moves(blocks: list[block_pairs.BlockPair], view: views.View) -> list[Move]:
  """Lists moves that together match every group of the blocks.

  A group is matched together with its dependents, unless the nested gram would
  be too large; then each of them is matched separately.

  Args:
    blocks: the block pairs of both models.
    view: the groups.

  Returns:
    The moves, those of outer groups first.
  """
  result = []
  outer_of = view.outer_of
  separate: set[str] = set()  # groups matched without their dependents
  for group in view.groups:  # sorted: outer groups first
    name = group.name
    mine = [i for i, block in enumerate(blocks) if name in block.names]
    inner = {g for g, outer in outer_of.items() if name in outer}
    dependents = frozenset({name, *inner})
    linear = [blocks[i] for i in mine if at_most_once(blocks[i], dependents)]
    # A group whose outer group has a nested move is matched in that move.
    if all(outer in separate for outer in group.outer if outer in outer_of):
      held = math.prod(group.shape[:-1])
      largest = max(
        (nested_heads.gram_size(x, name, outer_of) for x in linear), default=0
      )
      matched = dependents
      if largest > _MAX_GRAM * held:
        matched = frozenset({name})
      if matched != dependents or not linear:
        separate.add(name)
      if any(at_most_once(blocks[i], matched) for i in mine):
        result.append(
          Move(name, matched, dependents, group.outer, tuple(mine), False)
        )
    if any(blocks[i].names.count(name) > 1 for i in mine):
      result.append(
        Move(
          name, frozenset({name}), dependents, group.outer, tuple(mine), True
        )
      )
  return [
    move._replace(
      matrix=view.kinds[move.group] != 'permutation',
      signs=frozenset(
        name
        for name in move.matched
        if view.kinds[name] == 'sign'
        and outer_of[name] == (*move.outer, move.group)
      ),
    )
    for move in result
  ]


def refinements(
  blocks: list[block_pairs.BlockPair], view: views.View, moves: list[Move]
) -> list[Move]:
  """Lists moves of the orthogonal maps that other moves match with their units.

  The order of the units is held: the signs of units, and the maps of heads.
  They cost one product of each block, and no assignment.

  Args:
    blocks: the block pairs of both models.
    view: the groups.
    moves: all moves.
  """
  own = {move.group for move in moves}
  found = []
  for group in view.groups:
    name = group.name
    mine = tuple(i for i, block in enumerate(blocks) if name in block.names)
    if group.kind != 'permutation' and name not in own and mine:
      one = frozenset({name})
      found.append(Move(name, one, one, group.outer, mine, False, True))
  return found


def at_most_once(block: block_pairs.BlockPair, names: frozenset[str]) -> bool:
  """Returns True if each of ``names`` occurs at most once in the block."""
  return all(block.names.count(name) <= 1 for name in names)


def usable_blocks(
  move: Move,
  blocks: list[block_pairs.BlockPair],
  unmatched: set[str],
) -> list[int]:
  """Returns the blocks of a move in which every other group is matched."""
  others = unmatched - move.matched
  return [i for i in move.blocks if not others & {*blocks[i].names}]
