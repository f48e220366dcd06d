"""Moves of weight matching: which groups are matched together."""

import math
from typing import NamedTuple

from wsl.align import _symmetry
from wsl.align._match import nested_heads, weight_gains

_NESTED = 2**28  # the most products of pairs within pairs


class Move(NamedTuple):
  """A group that is matched, perhaps with those that depend on it.

  Attributes:
    group: its name.
    matched: the groups that are matched at once, its own included.
    family: the group and all that depend on it: they are carried along.
    lead: the factors that it depends on.
    blocks: the indices of the blocks that have it.
    quadratic: whether to climb where it occurs twice; else such blocks only
      judge what the others propose.
  """

  group: str
  matched: frozenset[str]
  family: frozenset[str]
  lead: weight_gains.Names
  blocks: tuple[int, ...]
  quadratic: bool


def moves(
  blocks: list[weight_gains.Block], symmetry: _symmetry.Symmetry
) -> list[Move]:
  """Lists the moves by which every group of the blocks is matched.

  A group is matched with those that depend on it, unless there were too many
  pairs within pairs: then each is matched by itself.
  """
  result = []
  outers = {group.name: group.outer for group in symmetry.groups}
  apart: set[str] = set()
  for group in symmetry.groups:  # outer ones come first
    name = group.name
    mine = [i for i, block in enumerate(blocks) if name in block.names]
    inner = {g for g, outer in outers.items() if name in outer}
    family = frozenset({name, *inner})
    what = (family, group.outer, tuple(mine))
    clean = [blocks[i] for i in mine if once(blocks[i], family)]
    if all(outer in apart for outer in group.outer if outer in outers):
      leading = math.prod(symmetry.factor[f].size for f in group.outer)
      most = max(
        (nested_heads.entries(x, name, outers) for x in clean), default=0
      )
      matched = family if most <= _NESTED * leading else frozenset({name})
      if matched != family or not clean:
        apart.add(name)
      if any(once(blocks[i], matched) for i in mine):
        result.append(Move(name, matched, *what, False))
    if any(blocks[i].names.count(name) > 1 for i in mine):
      result.append(Move(name, frozenset({name}), *what, True))
  return result


def once(block: weight_gains.Block, names: frozenset[str]) -> bool:
  """Tells whether no group of some occurs twice in a block."""
  return all(block.names.count(name) <= 1 for name in names)
