"""Moves of the search: groups that are coupled together."""

from typing import NamedTuple

from wsl.align._transport import setting as setting_lib


class Move(NamedTuple):
  """Groups that are coupled together.

  Attributes:
    groups: a group that depends on no other one, after all that depend on it;
      inner groups first.
    blocks: the indices of the blocks that have one of them.
    alternate: whether two of them that do not depend on each other share a
      block.
    repeated: whether one of them occurs twice in a block.
  """

  groups: tuple[str, ...]
  blocks: tuple[int, ...]
  alternate: bool
  repeated: bool


def find(setting: setting_lib.Setting) -> list[Move]:
  """Lists moves that together couple every group of the blocks."""
  found = []
  free = {g.name: g for g in setting.symmetry.groups}
  present = [{a.group for a in b.axes} - {''} for b in setting.blocks]
  for group in setting.symmetry.groups:
    if any(name in free for name in group.outer):
      continue
    below = [g.name for g in free.values() if group.name in g.outer]
    below.sort(key=lambda name: -len(free[name].outer))
    names = (*below, group.name)
    mine = tuple(i for i, p in enumerate(present) if p & {*names})
    pairs = [(a, b) for a in below for b in below if a < b]
    siblings = [
      (a, b)
      for a, b in pairs
      if a not in free[b].outer and b not in free[a].outer
    ]
    shared = any({a, b} <= present[i] for a, b in siblings for i in mine)
    twice = any(
      [a.group for a in setting.blocks[i].axes].count(name) > 1
      for i in mine
      for name in names
    )
    if mine:
      found.append(Move(names, mine, shared, twice))
  return found


def usable(
  setting: setting_lib.Setting, move: Move, unknown: set[str]
) -> tuple[int, ...]:
  """Returns the blocks of a move in which every other group is coupled."""
  others = unknown - {*move.groups}
  return tuple(
    i
    for i in move.blocks
    if not others & {axis.group for axis in setting.blocks[i].axes}
  )
