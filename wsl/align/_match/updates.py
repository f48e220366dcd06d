"""One move of weight matching: propose better tables, then apply them."""

from typing import NamedTuple

import numpy as np

from wsl.align._match import (
  block_pairs,
  cached_gains,
  nested_heads,
  one_group,
  quadratic,
  schedule,
  slices,
  weight_gains,
)


class Step(NamedTuple):
  """The result of a move.

  Attributes:
    tables: of the matched groups, relative to the current order, outer groups
      first; empty if nothing improves.
    gained: the increase of the agreement.
    value: the agreement of the move's blocks afterwards.
  """

  tables: block_pairs.Tables
  gained: float
  value: float


def propose(
  move: schedule.Move,
  blocks: list[block_pairs.BlockPair],
  outer_of: dict[str, block_pairs.Names],
  solvers: block_pairs.Solvers,
  cache: cached_gains.GainCache,
  room: int = 0,
) -> Step:
  """Solves for the groups of a move, given all other groups.

  Args:
    move: the move.
    blocks: the block pairs of both models, in the current order.
    outer_of: for each group the factors on which its permutation depends.
    solvers: for each group a function from gains to its table.
    cache: gains of groups; read, and extended if there is room.
    room: the number of entries that all gains in the cache may have.

  Returns:
    The step, whose tables never lower the agreement.
  """
  mine = [blocks[i] for i in move.blocks]
  group, outer = move.group, move.outer
  compare = lambda tables: _by_agreement(tables, mine, outer, outer_of)
  if move.quadratic:
    orders = quadratic.solve(
      mine,
      group,
      outer=outer,
      outer_of=outer_of,
      solver=solvers[group],
      matrix=move.matrix,
    )
    steps = [compare({group: order}) for order in orders]
    return max(steps, key=lambda step: step.gained)
  linear = [b for b in mine if schedule.at_most_once(b, move.matched)]
  if one_group.has_signs(move, linear):
    parts = slices.of(linear, group, outer, outer_of)
    signed = [one_group.with_signs(move, part, solvers) for part in parts]
    tables, before, gained = slices.join(signed, outer, outer_of)
    if len(linear) < len(mine):
      return compare(tables)
    return _keep_improvements(tables, before, gained, outer, outer_of)
  if any(len(move.matched & {*block.names}) > 1 for block in linear):
    solved = [
      nested_heads.solve(
        part, group, outer=outer, outer_of=outer_of, solvers=solvers
      )
      for part in slices.of(linear, group, outer, outer_of)
    ]
    return compare(slices.join_tables(solved, outer, outer_of))
  solver = solvers[group]
  if group in cache:
    gains = cached_gains.complete(cache, move, blocks, room)
    matches = [one_group.by_gain(gains, solver)]
  elif not move.matrix and one_group.is_vector(linear, outer):
    # One number for each unit: sorting avoids the n x n gains.
    matches = [one_group.by_rank(linear[0], group, outer)]
  elif outer or len(linear) < len(mine):
    matches = [
      one_group.by_gain(weight_gains.gains(part, group, outer), solver)
      for part in slices.of(linear, group, outer, outer_of)
    ]
  else:
    gains = cached_gains.complete(cache, move, blocks, room)
    matches = [one_group.by_gain(gains, solver)]
  columns = zip(*matches)
  order, before, gained = (
    slices.concatenate([*x], outer, outer) for x in columns
  )
  if len(linear) < len(mine):
    # The gains do not include the blocks that are quadratic in this group.
    return compare({group: order})
  return _keep_improvements({group: order}, before, gained, outer, outer_of)


def apply_step(
  move: schedule.Move,
  tables: block_pairs.Tables,
  blocks: list[block_pairs.BlockPair],
  permutation: block_pairs.Tables,
  outer_of: dict[str, block_pairs.Names],
  cache: cached_gains.GainCache,
  base: list[block_pairs.BlockPair] | None = None,
) -> None:
  """Permutes the blocks, the permutation and the cached gains in place.

  Args:
    move: the move.
    tables: of its step.
    blocks: the block pairs, in the current order.
    permutation: the current tables.
    outer_of: for each group the factors on which its permutation depends.
    cache: gains of groups.
    base: block pairs whose arrays are not overwritten; by default no array is.
  """
  if not tables:
    return
  order = tables.get(move.group) if len(tables) == 1 else None
  if order is not None and (order.ndim > 1 or move.matrix):
    order = None
  if move.group in cache:
    cached_gains.permute(cache, move.group, tables[move.group])
  for i in move.blocks:
    before = blocks[i]
    others = sorted(
      name
      for name in {*before.names} & cache.keys() - {move.group}
      if i in cache[name].blocks
    )
    if order is None or before.names.count(move.group) > 1:
      after = block_pairs.permute_moving(before, tables, outer_of)
      if others:
        change = before._replace(moving=after.moving - before.moving)
        cached_gains.update(cache, others, change)
    else:
      axis = before.names.index(move.group)
      if others:
        for change in cached_gains.changes(before, order, axis):
          cached_gains.update(cache, others, change)
      if base is None or before.moving is base[i].moving:
        after = block_pairs.permute_moving(before, tables, outer_of)
      else:
        block_pairs.permute_in_place(before.moving, order, axis)
        after = before
    blocks[i] = after
  for name in move.dependents:
    names = (*outer_of[name], name)
    matrix = permutation[name].ndim > len(names)
    names = (*names, f'{name} of the moving model') if matrix else names
    permutation[name] = block_pairs.gather(
      permutation[name], names, tables, outer_of
    )


def _by_agreement(
  tables: block_pairs.Tables,
  blocks: list[block_pairs.BlockPair],
  outer: block_pairs.Names,
  outer_of: dict[str, block_pairs.Names],
) -> Step:
  """Keeps the tables where the agreement of the permuted blocks is larger."""
  permuted = [block_pairs.permute_moving(b, tables, outer_of) for b in blocks]
  before = weight_gains.agreement(blocks, outer)
  after = weight_gains.agreement(permuted, outer)
  return _keep_improvements(tables, before, after - before, outer, outer_of)


def _keep_improvements(
  tables: block_pairs.Tables,
  before: np.ndarray,
  gained: np.ndarray,
  outer: block_pairs.Names,
  outer_of: dict[str, block_pairs.Names],
) -> Step:
  """Resets tables to the identity at outer indices that do not improve."""
  better = gained > 0
  value = float((before + np.maximum(gained, 0)).sum())
  if not better.any():
    return Step({}, 0.0, value)
  kept = {}
  for name, table in tables.items():
    labels = [*outer_of[name], *((name,) * (table.ndim - len(outer_of[name])))]
    axes = [i for i, label in enumerate(labels) if label not in outer]
    n = table.shape[-1]
    matrix = block_pairs.is_matrix(table)
    identity = np.eye(n) if matrix else np.arange(n, dtype=table.dtype)
    kept[name] = np.where(np.expand_dims(better, axes), table, identity)
  return Step(kept, float(gained[better].sum()), value)
