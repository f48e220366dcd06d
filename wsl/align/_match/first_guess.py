"""The starts of weight matching: grown from inputs and outputs, or random."""

import math
from typing import Any, NamedTuple

import numpy as np

from wsl.align._gauges import views
from wsl.align._match import (
  block_pairs,
  cached_gains,
  schedule,
  updates,
  weight_gains,
)

_MIN_FACTOR = 0.5  # lower bound of the random factors on the order of groups
# Units that a perturbation draws again in every group: this many, or this share
# of the group if that is more. A smaller change is undone by the ascent, a
# larger one forgets the result it starts from.
_REDRAWN_UNITS = 6
_REDRAWN_SHARE = 0.1
# Before all other groups are grown again, one group is assigned by its gains
# and noise of this many of their standard deviations, log-uniform; or this
# share of its units is drawn again.
_MIN_NOISE, _MAX_NOISE = 0.1, 1.0
_MIN_SHARE, _MAX_SHARE = 0.05, 0.5


class State(NamedTuple):
  """The state of the search.

  Attributes:
    blocks: the block pairs, the moving ones permuted.
    tables: for each group indices ``[*outer, n]`` or matrices.
    agreement: the inner product of both models.
    solved: the indices of the moves that would change nothing.
    cache: gains of groups.
  """

  blocks: list[block_pairs.BlockPair]
  tables: block_pairs.Tables
  agreement: float
  solved: frozenset[int] = frozenset()
  cache: cached_gains.GainCache | None = None


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
  room: int = 0,
) -> State:
  """Returns the state from which an ascent begins.

  The first ascent begins at ``initial``, or at the better of the grown guess
  and the current order. Afterwards three kinds take turns:

  * the current order, as in the official algorithm;
  * one group of the best permutation so far is varied, and all other groups are
    grown again from it;
  * in turn a guess grown in any order of groups; a few units of every group of
    the best permutation drawn again; the second kind twice.

  The last two are an iterated local search. The ascent from a point near the
  best permutation often returns to it. Growing the other groups again finds
  other local optima of high agreement.

  Args:
    index: the index of the ascent, from 0.
    blocks: the block pairs of both models, in the current order.
    moves: all moves.
    initial: the tables of the first ascent, or ``None`` to grow them.
    best: the tables of the best result of the earlier ascents.
    view: the groups to match.
    solvers: for each group a function from gains to its table.
    rng: a random generator.
    room: the number of entries of gains that may be kept for the ascent.

  Returns:
    The state, whose lists and dicts are new.
  """
  outer_of, current = view.outer_of, view.identity()
  growth: Any = dict(outer_of=outer_of, solvers=solvers, rng=rng, room=room)
  if index == 0 and initial is not None:
    tables = {name: np.asarray(initial[name]) for name in current}
    return _permuted(blocks, tables, outer_of)
  if index == 0:
    value = float(weight_gains.agreement(blocks, ()))
    guess = grow(blocks, current, moves, **growth)
    if guess.agreement > value:
      return guess
    return State([*blocks], current, value)
  units = [move for move in moves if not (move.quadratic or move.matrix)]
  if best and index % 12 == 3:
    return grow(blocks, current, moves, least=0.0, **growth)
  if best and units and (index % 3 == 2 or index % 12 in (0, 9)):
    move = units[rng.integers(len(units))]
    tables = current | {name: best[name] for name in move.matched}
    tables[move.group] = _vary(move, best, blocks, outer_of, solvers, rng)
    state = _permuted(blocks, tables, outer_of)
    return grow(state.blocks, tables, moves, matched=move.matched, **growth)
  if best and index % 3 != 1:
    tables = {
      name: _perturb(table, rng, _REDRAWN_UNITS, _REDRAWN_SHARE)
      for name, table in best.items()
    }
    return _permuted(blocks, tables, outer_of)
  return State([*blocks], current, float(weight_gains.agreement(blocks, ())))


def grow(
  blocks: list[block_pairs.BlockPair],
  tables: block_pairs.Tables,
  moves: list[schedule.Move],
  *,
  outer_of: dict[str, block_pairs.Names],
  solvers: block_pairs.Solvers,
  rng: np.random.Generator,
  room: int = 0,
  matched: frozenset[str] = frozenset(),
  least: float = _MIN_FACTOR,
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
    room: the number of entries of gains that may be kept.
    matched: groups that keep their current order.
    least: lower bound of the random factors on the order of groups.

  Returns:
    The state of the guess. Solved are the moves that used all of their blocks,
    since no other group in these blocks changed afterwards.
  """
  base, blocks, tables, solved = blocks, [*blocks], {**tables}, set()
  cache: cached_gains.GainCache = {}
  unmatched = {name for move in moves for name in move.dependents} - matched
  waiting = [
    i
    for i, move in enumerate(moves)
    if not move.quadratic and not move.matched <= matched
  ]
  while waiting:
    usable = [
      schedule.usable_blocks(moves[i], blocks, unmatched) for i in waiting
    ]
    shares = [
      sum(blocks[i].fixed.size for i in indices)
      / sum(blocks[i].fixed.size for i in moves[index].blocks)
      for index, indices in zip(waiting, usable)
    ]
    # Random factors vary the order of groups with similar shares, so that
    # several starts end in different local optima.
    scores = np.asarray(shares) * rng.uniform(least, 1, len(shares))
    best = int(scores.argmax())
    index, indices = waiting.pop(best), usable[best]
    move = moves[index]
    if len(indices) == len(move.blocks):
      solved.add(index)
    if indices:
      restricted = move._replace(blocks=tuple(indices))
      # The ascent adds the other products, but none of quadratic blocks.
      mine = [blocks[i] for i in move.blocks]
      once = all(schedule.at_most_once(x, move.matched) for x in mine)
      kept = cache if once else {}
      step = updates.propose(restricted, blocks, outer_of, solvers, kept, room)
      updates.apply_step(
        move, step.tables, blocks, tables, outer_of, cache, base
      )
    unmatched -= move.matched
  agreement = float(weight_gains.agreement(blocks, ()))
  return State(blocks, tables, agreement, frozenset(solved), cache)


def _vary(
  move: schedule.Move,
  best: block_pairs.Tables,
  blocks: list[block_pairs.BlockPair],
  outer_of: dict[str, block_pairs.Names],
  solvers: block_pairs.Solvers,
  rng: np.random.Generator,
) -> np.ndarray:
  """Exchanges units of a group that are similar to each other.

  If the group has dependents, or depends on others, any units are exchanged.
  """
  table = best[move.group]
  if move.outer or len(move.dependents) > 1:
    share = _log_uniform(_MIN_SHARE, _MAX_SHARE, rng)
    return _perturb(table, rng, 2, share)
  mine = [
    block_pairs.permute_moving(blocks[i], best, outer_of) for i in move.blocks
  ]
  mine = [block for block in mine if block.names.count(move.group) == 1]
  gains = weight_gains.gains(mine, move.group, ())
  noise = rng.standard_normal(gains.shape, np.float32)
  noise *= _log_uniform(_MIN_NOISE, _MAX_NOISE, rng) * float(gains.std())
  noise += gains
  return table[np.asarray(solvers[move.group](noise))]


def _log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
  """Draws a number whose logarithm is uniform."""
  return math.exp(rng.uniform(math.log(low), math.log(high)))


def _permuted(
  blocks: list[block_pairs.BlockPair],
  tables: block_pairs.Tables,
  outer_of: dict[str, block_pairs.Names],
) -> State:
  """Returns the state at a permutation."""
  blocks = [block_pairs.permute_moving(b, tables, outer_of) for b in blocks]
  return State(blocks, {**tables}, float(weight_gains.agreement(blocks, ())))


def _perturb(
  table: np.ndarray, rng: np.random.Generator, least: int, share: float
) -> np.ndarray:
  """Permutes some random entries of each row of a table ``[*outer, n]``.

  Matrices stay: the next ascent adapts them to the permutations.
  """
  if block_pairs.is_matrix(table):
    return table
  n = table.shape[-1]
  count = min(n, max(least, round(share * n)))
  shuffled = rng.permuted(np.broadcast_to(np.arange(n), table.shape), axis=-1)
  units = shuffled[..., :count]
  drawn = rng.permuted(np.take_along_axis(table, units, -1), axis=-1)
  result = table.copy()
  np.put_along_axis(result, units, drawn, -1)
  return result
