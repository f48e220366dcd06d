"""The starts of weight matching: grown from inputs and outputs, or random."""

from typing import NamedTuple

import numpy as np

from wsl.align._gauges import views
from wsl.align._match import block_pairs, schedule, updates, weight_gains

_MIN_FACTOR = 0.5  # lower bound of the random factors on the order of groups
# Units that a perturbation draws again in every group: this many, or this share
# of the group if that is more. A smaller change is undone by the ascent, a
# larger one forgets the result it starts from.
_REDRAWN_UNITS = 6
_REDRAWN_SHARE = 0.1


class State(NamedTuple):
  """The state of the search.

  Attributes:
    blocks: the block pairs, the moving ones permuted.
    tables: for each group indices ``[*outer, n]`` or matrices.
    agreement: the inner product of both models.
    solved: the indices of the moves that would change nothing.
  """

  blocks: list[block_pairs.BlockPair]
  tables: block_pairs.Tables
  agreement: float
  solved: frozenset[int] = frozenset()


def begin(
  index: int,
  blocks: list[block_pairs.BlockPair],
  moves: list[schedule.Move],
  *,
  initial: block_pairs.Tables | None,
  best: block_pairs.Tables | None,
  view: views.View,
  solvers: block_pairs.Solvers,
  rng: np.random.Generator,
) -> State:
  """Returns the state from which an ascent begins.

  A start has three ascents. The second one begins at the current order, as the
  official algorithm does, and the others at a perturbation of the best
  permutation so far: an iterated local search, which finds higher agreements in
  shorter ascents. The very first one begins at ``initial``, or at the better of
  the grown guess and the current order.

  Args:
    index: the index of the ascent, from 0.
    blocks: the block pairs of both models, in the current order.
    moves: all moves.
    initial: the tables of the first ascent, or ``None`` to grow them.
    best: the tables of the best result of the earlier ascents.
    view: the groups to match.
    solvers: for each group a function from gains to its table.
    rng: a random generator.

  Returns:
    The state, whose lists and dicts are new.
  """
  outer_of, tables = view.outer_of, view.identity()
  if index == 0 and initial is not None:
    tables = {name: np.asarray(initial[name]) for name in tables}
  elif index % 3 != 1 and best:
    tables = {name: _perturb(table, rng) for name, table in best.items()}
  if index % 3 != 1 and (index > 0 or initial is not None):
    blocks = [block_pairs.permute_moving(b, tables, outer_of) for b in blocks]
  value = float(weight_gains.agreement(blocks, ()))
  if index == 0 and initial is None:
    guess = grow(
      blocks, tables, moves, outer_of=outer_of, solvers=solvers, rng=rng
    )
    if guess.agreement > value:
      return guess
  return State([*blocks], tables, value)


def grow(
  blocks: list[block_pairs.BlockPair],
  tables: block_pairs.Tables,
  moves: list[schedule.Move],
  *,
  outer_of: dict[str, block_pairs.Names],
  solvers: block_pairs.Solvers,
  rng: np.random.Generator,
) -> State:
  """Matches every group once, from the groups that are matched already.

  A block with another unmatched group contributes only noise to the gains, and
  may mislead. So each move uses the blocks whose other groups are all matched
  (or pinned, as inputs and outputs are), and the next move is the one for which
  these blocks hold the largest share of the entries.

  Args:
    blocks: the block pairs of both models.
    tables: the current permutation.
    moves: all moves.
    outer_of: for each group the factors on which its permutation depends.
    solvers: for each group a function from gains to its table.
    rng: a random generator; perturbs the order of groups with similar shares.

  Returns:
    The state of the guess. Solved are the moves that used all of their blocks,
    since no other group in these blocks changed afterwards.
  """
  blocks, tables, solved = [*blocks], {**tables}, set()
  unmatched = {name for move in moves for name in move.dependents}
  waiting = [i for i, move in enumerate(moves) if not move.quadratic]
  while waiting:
    usable = [_usable_blocks(moves[i], blocks, unmatched) for i in waiting]
    shares = [
      sum(blocks[i].fixed.size for i in indices)
      / sum(blocks[i].fixed.size for i in moves[index].blocks)
      for index, indices in zip(waiting, usable)
    ]
    # Random factors vary the order of groups with similar shares, so that
    # several starts end in different local optima.
    scores = np.asarray(shares) * rng.uniform(_MIN_FACTOR, 1, len(shares))
    best = int(scores.argmax())
    index, indices = waiting.pop(best), usable[best]
    move = moves[index]
    if len(indices) == len(move.blocks):
      solved.add(index)
    if indices:
      restricted = move._replace(blocks=tuple(indices))
      step = updates.propose(restricted, blocks, outer_of, solvers, {})
      updates.apply_step(move, step.tables, blocks, tables, outer_of, {})
    unmatched -= move.matched
  agreement = float(weight_gains.agreement(blocks, ()))
  return State(blocks, tables, agreement, frozenset(solved))


def _perturb(table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Permutes a few random entries of each row of a table ``[*outer, n]``.

  Matrices stay: the next ascent adapts them to the permutations.
  """
  if block_pairs.is_matrix(table):
    return table
  n = table.shape[-1]
  count = min(n, max(_REDRAWN_UNITS, round(_REDRAWN_SHARE * n)))
  shuffled = rng.permuted(np.broadcast_to(np.arange(n), table.shape), axis=-1)
  units = shuffled[..., :count]
  drawn = rng.permuted(np.take_along_axis(table, units, -1), axis=-1)
  result = table.copy()
  np.put_along_axis(result, units, drawn, -1)
  return result


def _usable_blocks(
  move: schedule.Move,
  blocks: list[block_pairs.BlockPair],
  unmatched: set[str],
) -> list[int]:
  """Returns the blocks of a move in which every other group is matched."""
  others = unmatched - move.matched
  return [i for i in move.blocks if not others & {*blocks[i].names}]
