"""A first guess for weight matching, grown from inputs and outputs inwards."""

import numpy as np

from wsl.align import _assignment
from wsl.align._match import schedule, updates, weight_gains

_SPREAD = 0.5  # the least random factor in the choice of the next group


def grow(
  blocks: list[weight_gains.Block],
  tables: weight_gains.Tables,
  moves: list[schedule.Move],
  *,
  outers: dict[str, weight_gains.Names],
  solver: _assignment.Solver,
  rng: np.random.Generator,
) -> tuple[list[weight_gains.Block], weight_gains.Tables]:
  """Matches every group once, by what has been matched before it.

  A block in which another group is still in its old order says nothing about
  how to pair units, and may mislead. So the groups that input and output axes
  determine come first, then those that these determine.

  Args:
    blocks: the blocks of both models.
    tables: the present order.
    moves: all moves.
    outers: for each group the factors it depends on.
    solver: an assignment solver.
    rng: draws among groups that are about as well determined.

  Returns:
    The blocks and the tables of the guess.
  """
  blocks, tables = [*blocks], {**tables}
  unknown = {name for move in moves for name in move.family}
  waiting = [move for move in moves if not move.quadratic]
  while waiting:
    known = [_known(move, blocks, unknown) for move in waiting]
    shares = [
      sum(blocks[i].fixed.size for i in some)
      / sum(blocks[i].fixed.size for i in move.blocks)
      for move, some in zip(waiting, known)
    ]
    chance = np.asarray(shares) * rng.uniform(_SPREAD, 1, len(shares))
    index = int(chance.argmax())
    move, some = waiting.pop(index), known[index]
    if some:
      part = move._replace(blocks=tuple(some))
      step = updates.step(part, blocks, outers, solver, {})
      updates.take(move, step.tables, blocks, tables, outers, {})
    unknown -= move.matched
  return blocks, tables


def _known(
  move: schedule.Move, blocks: list[weight_gains.Block], unknown: set[str]
) -> list[int]:
  """Returns the blocks of a move that have no other unknown group."""
  others = unknown - move.matched
  return [i for i in move.blocks if not others & {*blocks[i].names}]
