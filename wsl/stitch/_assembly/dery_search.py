"""Local search for one block at each position, within a budget.

Feasible choices are found exactly, by backtracking with a lower bound on the
cost of the open positions. The neighbours of a choice exchange one block, or
the groups of two positions.
"""

from collections.abc import Callable, Iterator, Sequence
import itertools
import math
from typing import NamedTuple

import jax
import numpy as np

from wsl import types
from wsl.stitch._routes import routing


class Block(NamedTuple):
  """A candidate for a position, with its group and its costs ``[C]``."""

  piece: routing.Piece
  group: int
  cost: np.ndarray


def feasible_choice(
  key: types.PRNGKey,
  blocks: list[list[Block]],
  fits: Callable[[Sequence[Block]], bool],
  high: np.ndarray,
) -> list[Block] | None:
  """Returns a random choice within the budget, or None if there is none."""
  shuffle = jax.vmap(lambda key: jax.random.permutation(key, len(blocks[0])))
  rows = np.asarray(shuffle(jax.random.split(key, len(blocks))))
  orders = [[row[i] for i in order] for row, order in zip(blocks, rows)]
  # rest[k] bounds the cost of positions k, k + 1, ... from below: the cheapest
  # block of each, whatever its group. Backtracking discards a partial choice
  # that exceeds the budget together with this bound, so it stays exact.
  rest = np.zeros((len(orders) + 1, len(high)))
  for k in reversed(range(len(orders))):
    rest[k] = rest[k + 1] + np.min([block.cost for block in orders[k]], 0)

  def extend(chosen: list[Block]) -> list[Block] | None:
    """Completes a partial choice, depth first."""
    k = len(chosen)
    if k == len(orders):
      return chosen if fits(chosen) else None
    spent = np.sum([block.cost for block in chosen], 0) + rest[k]
    if (spent > high).any():
      return None
    taken = {block.group for block in chosen}
    for block in orders[k]:
      if block.group not in taken:
        found = extend([*chosen, block])
        if found is not None:
          return found
    return None

  return extend([])


def ascend(
  key: types.PRNGKey,
  blocks: list[list[Block]],
  chosen: list[Block],
  fits: Callable[[Sequence[Block]], bool],
  value: Callable[[Sequence[Block]], float],
) -> tuple[list[Block], list[float]]:
  """Accepts the first neighbour that raises the score, until there is none.

  Returns:
    The last choice, and the scores of all accepted ones, increasing.
  """
  # A draw of one size for all steps compiles once: at most M candidates for
  # each position, and M^2 for each pair of positions.
  count, models = len(blocks), len(blocks[0])
  size = count * models + math.comb(count, 2) * models**2
  history = [value(chosen)]
  while True:
    near = list(_neighbours(blocks, chosen))
    order = jax.random.permutation(jax.random.fold_in(key, len(history)), size)
    shuffled = (near[i] for i in np.asarray(order) if i < len(near))
    better = (x for x in shuffled if fits(x) and value(x) > history[-1])
    accepted = next(better, None)
    if accepted is None:
      break
    chosen = accepted
    history.append(value(chosen))
  return chosen, history


def _neighbours(
  blocks: list[list[Block]], chosen: list[Block]
) -> Iterator[list[Block]]:
  """Yields choices with one other block, or with two groups exchanged."""
  of = lambda k, group: [b for b in blocks[k] if b.group == group]
  for k, block in enumerate(chosen):
    for other in of(k, block.group):
      if other.piece != block.piece:
        yield [*chosen[:k], other, *chosen[k + 1 :]]
  for k, m in itertools.combinations(range(len(chosen)), 2):
    pairs = itertools.product(of(k, chosen[m].group), of(m, chosen[k].group))
    for first, second in pairs:
      changed = list(chosen)
      changed[k], changed[m] = first, second
      yield changed
