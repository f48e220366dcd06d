"""Moves of weight matching: which groups are matched together, and one step."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from wsl.align import _assignment, _gains, _nested, _quadratic, _symmetry

Kept: TypeAlias = dict[str, Any]  # gains ``[n, n]`` of groups
_ENTRIES = 2**27  # of the gains of a group, before they are made in parts


class Move(NamedTuple):
  """A group that is matched at once with those that depend on it.

  Attributes:
    group: its name.
    family: the group and those that depend on it.
    lead: the factors that it depends on.
    blocks: the indices of the blocks that have it.
    quadratic: whether to climb where it occurs twice and carry the rest of the
      family along; else such blocks only judge what the others propose.
  """

  group: str
  family: frozenset[str]
  lead: _gains.Names
  blocks: tuple[int, ...]
  quadratic: bool


class Step(NamedTuple):
  """What a move proposes.

  Attributes:
    tables: of groups of the family, relative to the present order, outer ones
      first; empty if nothing is better.
    gained: by how much the agreement grows.
    value: the agreement of the move's blocks after it.
  """

  tables: _gains.Tables
  gained: float
  value: float


def moves(
  blocks: list[_gains.Block], symmetry: _symmetry.Symmetry
) -> list[Move]:
  """Lists the moves by which every group of the blocks is matched."""
  result = []
  free = {group.name for group in symmetry.groups}
  for group in symmetry.groups:
    mine = [i for i, b in enumerate(blocks) if group.name in b.names]
    inner = {g.name for g in symmetry.groups if group.name in g.outer}
    family = frozenset({group.name, *inner})
    what = (group.name, family, group.outer, tuple(mine))
    rooted = not free & {*group.outer}
    if rooted and any(_once(blocks[i], family) for i in mine):
      result.append(Move(*what, False))
    if any(blocks[i].names.count(group.name) > 1 for i in mine):
      result.append(Move(*what, True))
  return result


def step(
  move: Move,
  blocks: list[_gains.Block],
  outers: dict[str, _gains.Names],
  solver: _assignment.Solver,
  kept: Kept,
) -> Step:
  """Finds better tables for a move, given all other groups.

  Uses the gains that are kept for its group, and keeps them if there is room.
  """
  mine = [blocks[i] for i in move.blocks]
  group, lead = move.group, move.lead
  if move.quadratic:
    orders = _quadratic.solve(
      mine, group, lead=lead, outers=outers, solver=solver
    )
    steps = [_judge({group: order}, mine, lead, outers) for order in orders]
    return max(steps, key=lambda found: found.gained)
  clean = [block for block in mine if _once(block, move.family)]
  parts = _parts(clean, group, lead, outers)
  if any(move.family & {*block.names} != {group} for block in clean):
    solved = [
      _nested.solve(part, group, lead=lead, outers=outers, solver=solver)
      for part in parts
    ]
    tables = {
      name: _join([found[name] for found in solved], lead, outers[name])
      for name in solved[0]
    }
    return _judge(tables, mine, lead, outers)
  if group in kept:
    pairs = [_pair(kept[group], solver)]
  else:
    all_gains = [_gains.gains(part, group, lead) for part in parts]
    pairs = [_pair(gains, solver) for gains in all_gains]
    room = sum(x.fixed.size for x in blocks) - sum(
      x.size for x in kept.values()
    )
    if not lead and len(clean) == len(mine) and all_gains[0].size <= room:
      kept[group] = all_gains[0]
  order, before, after = (_join([*x], lead, lead) for x in zip(*pairs))
  if len(clean) < len(mine):
    return _judge({group: order}, mine, lead, outers)
  return _better({group: order}, before, after, lead, outers)


def take(
  move: Move,
  step: _gains.Tables,
  blocks: list[_gains.Block],
  tables: _gains.Tables,
  outers: dict[str, _gains.Names],
  kept: Kept,
) -> None:
  """Permutes blocks and tables by a step; the gains that are kept follow."""
  if not step:
    return
  order = step.get(move.group) if len(step) == 1 else None
  if move.group in kept:
    kept[move.group] = kept[move.group].take(order, axis=-1)
  for i in move.blocks:
    before = blocks[i]
    blocks[i] = after = _gains.moved(before, step, outers)
    change = None
    for group in set(after.names) & kept.keys() - {move.group}:
      if change is None:
        change = _change(before, after, move, order)
      kept[group] = _gains.gains([change], group, (), kept[group])
  for name in move.family:
    names = (*outers[name], name)
    tables[name] = _gains.gather(tables[name], names, step, outers)


def _change(
  before: _gains.Block,
  after: _gains.Block,
  move: Move,
  order: np.ndarray | None,
) -> _gains.Block:
  """Returns what a move changed in a block: if few units, those alone."""
  fixed, old, new = after.fixed, before.moving, after.moving
  once = after.names.count(move.group) == 1
  # An accelerator would compile for each number of units.
  if order is not None and order.ndim == 1 and once and _gains.on_host(new):
    axis = after.names.index(move.group)
    units = np.nonzero(order != np.arange(len(order)))[0]
    fixed, old, new = (x.take(units, axis=axis) for x in (fixed, old, new))
  return _gains.Block(after.names, fixed, new - old)


def _pair(
  gains: Any, solver: _assignment.Solver
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the best order, and the agreements ``[*lead]`` before and after."""
  gains = np.asarray(gains)
  order = np.asarray(solver(gains))
  before = np.diagonal(gains, axis1=-2, axis2=-1)
  after = np.take_along_axis(gains, order[..., None], -1)[..., 0]
  sums = [np.asarray(x.sum(-1, dtype=np.float64)) for x in (before, after)]
  return order, sums[0], sums[1]


def _judge(
  tables: _gains.Tables,
  blocks: list[_gains.Block],
  lead: _gains.Names,
  outers: dict[str, _gains.Names],
) -> Step:
  """Compares the agreements themselves."""
  moved = [_gains.moved(block, tables, outers) for block in blocks]
  before, after = (_gains.agreement(x, lead) for x in (blocks, moved))
  return _better(tables, before, after, lead, outers)


def _better(
  tables: _gains.Tables,
  before: np.ndarray,
  after: np.ndarray,
  lead: _gains.Names,
  outers: dict[str, _gains.Names],
) -> Step:
  """Keeps tables for those leading indices where the agreement grows."""
  better = after > before
  value = float(np.maximum(before, after).sum())
  if not better.any():
    return Step({}, 0.0, value)
  kept = {}
  for name, table in tables.items():
    axes = [
      i for i, outer in enumerate((*outers[name], name)) if outer not in lead
    ]
    stay = np.arange(table.shape[-1], dtype=table.dtype)
    kept[name] = np.where(np.expand_dims(better, axes), table, stay)
  return Step(kept, float((after - before)[better].sum()), value)


def _once(block: _gains.Block, family: frozenset[str]) -> bool:
  """Tells whether no group of a family occurs twice in a block."""
  return all(block.names.count(name) <= 1 for name in family)


def _parts(
  blocks: list[_gains.Block],
  group: str,
  lead: _gains.Names,
  outers: dict[str, _gains.Names],
) -> list[list[_gains.Block]]:
  """Cuts blocks along the first leading factor if all gains would be large."""
  if not lead:
    return [blocks]
  places = [block.names.index(lead[0]) for block in blocks]
  size = blocks[0].fixed.shape[places[0]]
  entries = max(_nested.entries(block, group, outers) for block in blocks)
  length = max(1, _ENTRIES * size // entries)
  return [
    [
      block._replace(
        fixed=block.fixed[(slice(None),) * i + (slice(j, j + length),)],
        moving=block.moving[(slice(None),) * i + (slice(j, j + length),)],
      )
      for block, i in zip(blocks, places)
    ]
    for j in range(0, size, length)
  ]


def _join(
  parts: list[np.ndarray], lead: _gains.Names, names: _gains.Names
) -> np.ndarray:
  if len(parts) == 1:
    return parts[0]
  return np.concatenate(parts, names.index(lead[0]))
