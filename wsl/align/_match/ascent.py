"""Coordinate ascent: moves until none of them increases the agreement."""

from collections.abc import Iterator

import numpy as np

from wsl.align._match import (
  block_pairs,
  first_guess,
  schedule,
  updates,
  weight_gains,
)

# Fractions of half the squared distance between the models. An orthogonal map
# that removes more than the first has changed, and its neighbours are visited
# again; more than the second, and units are assigned again too.
_CHANGED = 1e-3
_REASSIGNED = 0.02
_NEAR = 1e-6  # squared distance of models, relative, that are polished
_MAX_POLISH = 50  # sweeps
_ENDED = 0.9  # of the squared distance after a sweep of rounding errors only


def ascend(
  state: first_guess.State,
  moves: list[schedule.Move],
  refinements: list[schedule.Move],
  *,
  base: list[block_pairs.BlockPair],
  outer_of: dict[str, block_pairs.Names],
  solvers: block_pairs.Solvers,
  rng: np.random.Generator,
  max_sweeps: int,
  tolerance: float,
  room: int,
) -> Iterator[tuple[int, str, float]]:
  """Coordinate ascent; updates the blocks and tables of ``state`` in place.

  Args:
    state: the start.
    moves: moves that together match every group.
    refinements: moves of orthogonal maps that others match with their units.
    base: the block pairs as they were read, which are not overwritten.
    outer_of: for each group the factors on which its table depends.
    solvers: for each group a function from gains to its table.
    rng: draws the order of the visits.
    max_sweeps: the maximum number of sweeps.
    tolerance: see ``weight_matching``.
    room: the number of entries of gains that may be kept between visits.

  Yields:
    The sweep, the group and the increase of the agreement of every visit.
  """
  # The result of a move depends only on the groups in its blocks. A move waits
  # if one of these has changed since its last visit; another visit to the
  # remaining moves would change nothing, nor would a visit to solved ones.
  blocks, tables, solved = state.blocks, state.tables, {*state.solved}
  steps = [*moves, *refinements]
  present = [{n for i in m.blocks for n in blocks[i].names} for m in steps]
  waiting, whole = set(range(len(moves))), set(range(len(moves)))
  fine = {i for i, move in enumerate(steps) if move.matrix}
  matrices = {n for n, t in tables.items() if block_pairs.is_matrix(t)}
  cache = {**(state.cache or {})}
  for sweep in range(max_sweeps):
    left = half_squared_distance(blocks) if matrices else 0.0
    for index in rng.permutation(len(steps)):
      if index not in waiting:
        continue
      waiting.remove(index)
      move = steps[index]
      if index in solved:
        yield sweep, move.group, 0.0
        continue
      step = updates.propose(move, blocks, outer_of, solvers, cache, room)
      updates.apply_step(
        move, step.tables, blocks, tables, outer_of, cache, base
      )
      least, reached = tolerance * abs(step.value), whole
      if matrices & move.dependents:
        # Orthogonal maps converge slowly between unrelated models. Where the
        # ascent converges to equal models, each sweep removes a similar
        # fraction of the distance that is left.
        least = max(_rounding(step.value, blocks), _CHANGED * left)
        reached = whole if step.gained > _REASSIGNED * left else fine
      if step.gained > least:
        affected = {
          i for i, names in enumerate(present) if names & move.dependents
        }
        waiting |= (affected & reached) - {index}
        solved -= affected
      yield sweep, move.group, step.gained
    if not waiting:
      break


def polish(
  blocks: list[block_pairs.BlockPair],
  tables: block_pairs.Tables,
  moves: list[schedule.Move],
  *,
  outer_of: dict[str, block_pairs.Names],
  solvers: block_pairs.Solvers,
) -> block_pairs.Tables:
  """Repeats the moves of orthogonal maps where models are nearly equal.

  The moving blocks are computed again from the given ones: in an ascent of many
  sweeps they collect rounding errors of each product.

  Args:
    blocks: the block pairs of both models, in their given order.
    tables: the result of the ascent.
    moves: those of orthogonal maps that occur once in each block.
    outer_of: for each group the factors on which its table depends.
    solvers: for each group a function from gains to its table.

  Returns:
    The tables.
  """
  if not moves:
    return tables
  moved = [block_pairs.permute_moving(b, tables, outer_of) for b in blocks]
  energy = sum(float(np.square(b.fixed).sum()) for b in blocks)
  left = half_squared_distance(moved)
  if left > _NEAR * energy:
    return tables
  for _ in range(_MAX_POLISH):
    before = left
    for move in moves:
      # The increase is smaller than the rounding errors of the agreement, so
      # that it is not compared.
      mine = [moved[i] for i in move.blocks]
      gains = weight_gains.gains(mine, move.group, move.outer)
      found = {move.group: solvers[move.group](gains)}
      updates.apply_step(move, found, moved, tables, outer_of, {})
    left = half_squared_distance(moved)
    if left > _ENDED * before:
      break
  return tables


def half_squared_distance(blocks: list[block_pairs.BlockPair]) -> float:
  """Returns the agreement that equal models would gain."""
  return sum(
    float(np.square(block.fixed - block.moving, dtype=np.float64).sum()) / 2
    for block in blocks
  )


def _rounding(value: float, blocks: list[block_pairs.BlockPair]) -> float:
  """Returns the gain of a map that differs from the identity by rounding.

  The gain is of second order in the difference.
  """
  return abs(value) * float(np.finfo(blocks[0].fixed.dtype).eps) ** 2
