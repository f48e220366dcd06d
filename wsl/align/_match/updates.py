"""Steps of weight matching: what a move proposes, and taking it."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from wsl.align import _assignment
from wsl.align._match import nested_heads, quadratic, schedule, weight_gains

Kept: TypeAlias = dict[str, Any]  # gains ``[n, n]`` of groups
_ENTRIES = 2**27  # of the gains of a group, before they are made in parts


class Step(NamedTuple):
  """What a move proposes.

  Attributes:
    tables: of groups of the family, relative to the present order, outer ones
      first; empty if nothing is better.
    gained: by how much the agreement grows.
    value: the agreement of the move's blocks after it.
  """

  tables: weight_gains.Tables
  gained: float
  value: float


def step(
  move: schedule.Move,
  blocks: list[weight_gains.Block],
  outers: dict[str, weight_gains.Names],
  solver: _assignment.Solver,
  kept: Kept,
) -> Step:
  """Finds better tables for a move, given all other groups.

  Uses the gains that are kept for its group, and keeps them if there is room.
  """
  mine = [blocks[i] for i in move.blocks]
  group, lead = move.group, move.lead
  if move.quadratic:
    orders = quadratic.solve(
      mine, group, lead=lead, outers=outers, solver=solver
    )
    steps = [_judge({group: order}, mine, lead, outers) for order in orders]
    return max(steps, key=lambda found: found.gained)
  clean = [block for block in mine if schedule.once(block, move.matched)]
  if any(len(move.matched & {*block.names}) > 1 for block in clean):
    solved = [
      nested_heads.solve(part, group, lead=lead, outers=outers, solver=solver)
      for part in _parts(clean, group, lead, outers)
    ]
    tables = {
      name: _join([found[name] for found in solved], lead, outers[name])
      for name in solved[0]
    }
    return _judge(tables, mine, lead, outers)
  if group in kept:
    pairs = [_pair(kept[group], solver)]
  elif len(clean) == 1 and len({*clean[0].names} - {*lead}) == 1:
    pairs = [_rank(clean[0], group, lead)]
  elif lead or len(clean) < len(mine):
    pairs = [
      _pair(weight_gains.gains(part, group, lead), solver)
      for part in _parts(clean, group, lead, outers)
    ]
  else:
    gains = weight_gains.gains(clean, group, lead)
    room = sum(block.fixed.size for block in blocks)
    if gains.size + sum(x.size for x in kept.values()) <= room:
      kept[group] = gains
    pairs = [_pair(gains, solver)]
  order, before, after = (_join([*x], lead, lead) for x in zip(*pairs))
  if len(clean) < len(mine):
    return _judge({group: order}, mine, lead, outers)
  return _better({group: order}, before, after, lead, outers)


def _rank(
  block: weight_gains.Block, group: str, lead: weight_gains.Names
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Solves for units of one number each: the greatest go together."""
  order = [*map(block.names.index, (*lead, group))]
  x, y = (np.asarray(v).transpose(order) for v in (block.fixed, block.moving))
  indices = np.empty(x.shape, np.int32)
  ranked = np.argsort(y, -1, kind='stable').astype(np.int32)
  np.put_along_axis(indices, np.argsort(x, -1, kind='stable'), ranked, -1)
  moved = np.take_along_axis(y, indices, -1)
  sums = [np.asarray((x * v).sum(-1, dtype=np.float64)) for v in (y, moved)]
  return indices, sums[0], sums[1]


def take(
  move: schedule.Move,
  step: weight_gains.Tables,
  blocks: list[weight_gains.Block],
  tables: weight_gains.Tables,
  outers: dict[str, weight_gains.Names],
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
    blocks[i] = after = weight_gains.moved(before, step, outers)
    change = None
    for group in set(after.names) & kept.keys() - {move.group}:
      if change is None:
        change = _change(before, after, move, order)
      kept[group] = weight_gains.gains([change], group, (), kept[group])
  for name in move.family:
    names = (*outers[name], name)
    tables[name] = weight_gains.gather(tables[name], names, step, outers)


def _change(
  before: weight_gains.Block,
  after: weight_gains.Block,
  move: schedule.Move,
  order: np.ndarray | None,
) -> weight_gains.Block:
  """Returns what a move changed in a block: if few units, those alone."""
  fixed, old, new = after.fixed, before.moving, after.moving
  once = after.names.count(move.group) == 1
  # An accelerator would compile for each number of units.
  if (
    order is not None and order.ndim == 1 and once and weight_gains.on_host(new)
  ):
    axis = after.names.index(move.group)
    units = np.nonzero(order != np.arange(len(order)))[0]
    fixed, old, new = (x.take(units, axis=axis) for x in (fixed, old, new))
  return weight_gains.Block(after.names, fixed, new - old)


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
  tables: weight_gains.Tables,
  blocks: list[weight_gains.Block],
  lead: weight_gains.Names,
  outers: dict[str, weight_gains.Names],
) -> Step:
  """Compares the agreements themselves."""
  moved = [weight_gains.moved(block, tables, outers) for block in blocks]
  before, after = (weight_gains.agreement(x, lead) for x in (blocks, moved))
  return _better(tables, before, after, lead, outers)


def _better(
  tables: weight_gains.Tables,
  before: np.ndarray,
  after: np.ndarray,
  lead: weight_gains.Names,
  outers: dict[str, weight_gains.Names],
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


def _parts(
  blocks: list[weight_gains.Block],
  group: str,
  lead: weight_gains.Names,
  outers: dict[str, weight_gains.Names],
) -> list[list[weight_gains.Block]]:
  """Cuts blocks along the first leading factor if all gains would be large."""
  if not lead:
    return [blocks]
  places = [block.names.index(lead[0]) for block in blocks]
  size = blocks[0].fixed.shape[places[0]]
  entries = max(nested_heads.entries(block, group, outers) for block in blocks)
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
  parts: list[np.ndarray], lead: weight_gains.Names, names: weight_gains.Names
) -> np.ndarray:
  if len(parts) == 1:
    return parts[0]
  return np.concatenate(parts, names.index(lead[0]))
