"""DeRy's reassembly: one block for each place, within a budget."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import itertools
from typing import NamedTuple, TypeAlias

import numpy as np

from wsl.stitch._assembly import dery_partition
from wsl.stitch._routes import routing

Pieces: TypeAlias = tuple[routing.Piece, ...]


class Reassembly(NamedTuple):
  """A network made of blocks of others.

  Attributes:
    pieces: the block for each of the K positions.
    groups: which group each is of; all differ.
    cost: what they cost together, ``[C]``.
    score: what the score function said.
    history: the scores of the best restart, as they rose.
  """

  pieces: Pieces
  groups: tuple[int, ...]
  cost: tuple[float, ...]
  score: float
  history: tuple[float, ...]


class _Block(NamedTuple):
  piece: routing.Piece
  group: int
  cost: np.ndarray


def reassemble(
  partition: dery_partition.Partition,
  score: Callable[[Pieces], float],
  *,
  costs: Mapping[str, np.ndarray],
  most: Sequence[float],
  least: Sequence[float] | None = None,
  follows: Callable[[routing.Piece, routing.Piece], bool] | None = None,
  restarts: int = 10,
  seed: int = 0,
) -> Reassembly:
  r"""Picks one block of each group for the K positions of a new network.

  .. math:: \max_{b_1 \dots b_K} \mathrm{score}(b_1, \dots, b_K), \quad
    c_- \le \sum_k c(b_k) \le c_+

  The block for position k is the k-th block of its network, and no two blocks
  are of one group. From a random choice within the budget, positions in random
  order exchange their block for another of the same group, or two positions
  exchange groups; an exchange is kept if the score rises. Every choice is
  scored once.

  Args:
    partition: from ``partition``.
    score: maps K pieces to a number, larger is better: an accuracy, or
      ``naswot`` of the network that they make.
    costs: for each network ``[D, C]``, C costs of each node (parameters, FLOPs,
      see ``cost``). Embedding, head and adapters are not counted.
    most: the largest sum allowed of each cost, ``[C]``.
    least: the smallest, ``[C]``; zeros if ``None``.
    follows: maps two pieces to whether the second may come right after the
      first (convolutions before attention); any may if ``None``.
    restarts: random choices to begin with, the best result is kept.
    seed: of these and of the orders.

  Returns:
    The best choice; its pieces and an adapter between each two are a ``Route``.

  Raises:
    ValueError: if no choice is within the budget.

  Example:
    >>> kind = np.array([0, 1, 0, 1])
    >>> same = (kind[:, None] == kind[None]).astype(float)
    >>> sizes = {'a': 2, 'b': 2}
    >>> cut = dery_partition.partition(same, sizes, count=2, restarts=5)
    >>> costs = {'a': np.array([[1], [1]]), 'b': np.array([[5], [2]])}
    >>> of_b = lambda pieces: sum(piece.model == 'b' for piece in pieces)
    >>> found = reassemble(cut, of_b, costs=costs, most=[4])
    >>> [p.model for p in found.pieces], found.cost
    (['a', 'b'], (3.0,))

  Reference:
    Yang et al., "Deep Model Reassembly", 2022, arXiv:2210.17409. There it is
    called an integer program; the official code, as this, is a random greedy
    search.
  """
  blocks = _blocks(partition, costs, len(most))
  low = np.zeros(len(most)) if least is None else np.asarray(least, np.float64)
  high = np.asarray(most, np.float64)
  allowed = follows or (lambda first, second: True)
  random = np.random.RandomState(seed)
  known: dict[Pieces, float] = {}

  def value(chosen: Sequence[_Block]) -> float:
    pieces = tuple(block.piece for block in chosen)
    if pieces not in known:
      known[pieces] = float(score(pieces))
    return known[pieces]

  def fits(chosen: Sequence[_Block]) -> bool:
    total = np.sum([block.cost for block in chosen], 0)
    pairs = itertools.pairwise(chosen)
    return bool(
      (total <= high).all()
      and (total >= low).all()
      and all(allowed(a.piece, b.piece) for a, b in pairs)
    )

  best: Reassembly | None = None
  for _ in range(restarts):
    chosen = _feasible(random, blocks, fits, high)
    if chosen is None:
      break
    history = [value(chosen)]
    while (better := _better(random, blocks, chosen, fits, value)) is not None:
      chosen = better
      history.append(value(chosen))
    if best is None or history[-1] > best.score:
      best = _reassembly(chosen, history)
  if best is None:
    raise ValueError(
      f'reassemble: no choice of one block for each position and group costs '
      f'{low.tolist()} .. {high.tolist()}: widen the budget (most, least)'
      + (' or loosen follows' if follows else '')
    )
  return best


def _blocks(
  partition: dery_partition.Partition,
  costs: Mapping[str, np.ndarray],
  width: int,
) -> list[list[_Block]]:
  """Returns the blocks for each position, with their costs."""
  table: list[list[_Block]] = [[] for _ in partition.centres]
  for name, pieces in partition.pieces.items():
    if name not in costs:
      raise ValueError(f"reassemble: costs has no '{name}': give one a network")
    node = np.asarray(costs[name], np.float64)
    if node.shape != (pieces[-1].stop, width):
      raise ValueError(
        f"reassemble: costs of '{name}' are {list(node.shape)}: expected "
        f'[{pieces[-1].stop}, {width}], nodes by budgets'
      )
    for k, (piece, group) in enumerate(zip(pieces, partition.groups[name])):
      own = node[piece.start : piece.stop].sum(0)
      table[k].append(_Block(piece, group, own))
  return table


def _feasible(
  random: np.random.RandomState,
  blocks: list[list[_Block]],
  fits: Callable[[Sequence[_Block]], bool],
  high: np.ndarray,
) -> list[_Block] | None:
  """Returns a random choice within the budget, or None if there is none."""
  orders = [[row[i] for i in random.permutation(len(row))] for row in blocks]
  rest = np.zeros((len(orders) + 1, len(high)))
  for k in reversed(range(len(orders))):
    rest[k] = rest[k + 1] + np.min([block.cost for block in orders[k]], 0)

  def extend(chosen: list[_Block]) -> list[_Block] | None:
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


def _better(
  random: np.random.RandomState,
  blocks: list[list[_Block]],
  chosen: list[_Block],
  fits: Callable[[Sequence[_Block]], bool],
  value: Callable[[Sequence[_Block]], float],
) -> list[_Block] | None:
  """Returns the first exchange that raises the score, in random order."""
  now = value(chosen)
  exchanges = list(_exchanges(blocks, chosen))
  for i in random.permutation(len(exchanges)):
    if fits(exchanges[i]) and value(exchanges[i]) > now:
      return exchanges[i]
  return None


def _exchanges(
  blocks: list[list[_Block]], chosen: list[_Block]
) -> Iterator[list[_Block]]:
  """Yields what one position, or two that exchange groups, can become."""
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


def _reassembly(chosen: list[_Block], history: list[float]) -> Reassembly:
  return Reassembly(
    tuple(block.piece for block in chosen),
    tuple(block.group for block in chosen),
    tuple(np.sum([block.cost for block in chosen], 0).tolist()),
    history[-1],
    tuple(history),
  )
