"""DeRy's reassembly: one block for each position, within a budget.

A choice is a permutation of the K groups over the positions and a block for
each. The score is a black box (an accuracy, NASWOT), maximised by local search
from several random choices within the budget.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import itertools
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from wsl import deprecation, types
from wsl.stitch._assembly import dery_partition, dery_search
from wsl.stitch._routes import routing

Pieces: TypeAlias = tuple[routing.Piece, ...]


class Reassembly(NamedTuple):
  """A network made of blocks of others.

  Attributes:
    pieces: the block at each of the K positions.
    groups: the group of each block; all differ.
    cost: sum of the costs of the blocks, ``[C]``.
    score: value of the score function.
    history: scores of the accepted choices of the best restart; increasing.
  """

  pieces: Pieces
  groups: tuple[int, ...]
  cost: tuple[float, ...]
  score: float
  history: tuple[float, ...]


def reassemble(
  partition: dery_partition.Partition,
  score: Callable[[Pieces], float],
  *,
  key: types.PRNGKey | None = None,
  costs: Mapping[str, np.ndarray],
  most: Sequence[float],
  least: Sequence[float] | None = None,
  follows: Callable[[routing.Piece, routing.Piece], bool] | None = None,
  restarts: int = 10,
  seed: int | None = None,
) -> Reassembly:
  r"""Selects one block of each group for the K positions of a new network.

  .. math:: \max_{b_1 \dots b_K} \mathrm{score}(b_1, \dots, b_K), \quad
    c_- \le \sum_k c(b_k) \le c_+

  The block at position k is the k-th block of its network, and no two blocks
  are of one group. Each restart begins with a random choice within the budget.
  Local search then tries, in random order, to replace one block by another of
  its group or to exchange the groups of two positions, and accepts a change
  that raises the score, until none does. Each choice is scored once.

  Args:
    partition: from ``partition``.
    score: maps K pieces to a number to maximise, such as an accuracy, or
      ``naswot`` of the network of these pieces.
    key: source of the random starts and orders, required; a key determines the
      result.
    costs: for each network ``[D, C]``, C costs of each node (parameters, FLOPs,
      see ``cost``). Embedding, head and adapters are not counted.
    most: upper bounds of the summed costs, ``[C]``.
    least: lower bounds, ``[C]``; zeros if ``None``.
    follows: maps two pieces to whether the second may directly follow the
      first (convolutions before attention); always true if ``None``.
    restarts: number of random starts, of which the best result is kept.
    seed: deprecated: ``key=jax.random.key(seed)``.

  Returns:
    The best choice. Its pieces, with an adapter between consecutive ones, are a
    ``Route``.

  Raises:
    TypeError: if no key is given.
    ValueError: if no choice is within the budget.

  Example:
    >>> kind = np.array([0, 1, 0, 1])
    >>> same = (kind[:, None] == kind[None]).astype(float)
    >>> sizes = {'a': 2, 'b': 2}
    >>> key = jax.random.key(0)
    >>> cut = dery_partition.partition(
    ...   same, sizes, key=key, count=2, restarts=5)
    >>> costs = {'a': np.array([[1], [1]]), 'b': np.array([[5], [2]])}
    >>> of_b = lambda pieces: sum(piece.model == 'b' for piece in pieces)
    >>> found = reassemble(cut, of_b, key=key, costs=costs, most=[4])
    >>> [p.model for p in found.pieces], found.cost
    (['a', 'b'], (3.0,))

  Reference:
    Yang et al., "Deep Model Reassembly", 2022, arXiv:2210.17409.

  The paper calls it an integer program; the official code is a randomised
  greedy search, as here.
  """
  key = deprecation.key_or_seed('stitch.reassemble', key, seed)
  blocks = _blocks(partition, costs, len(most))
  low = np.zeros(len(most)) if least is None else np.asarray(least, np.float64)
  high = np.asarray(most, np.float64)
  allowed = follows or (lambda first, second: True)
  scored = functools.cache(score)
  value = lambda chosen: float(scored(tuple(block.piece for block in chosen)))

  def fits(chosen: Sequence[dery_search.Block]) -> bool:
    """Returns whether a choice is within the budget, in an allowed order."""
    total = np.sum([block.cost for block in chosen], 0)
    pairs = itertools.pairwise(chosen)
    return bool(
      (total <= high).all()
      and (total >= low).all()
      and all(allowed(a.piece, b.piece) for a, b in pairs)
    )

  best: Reassembly | None = None
  for restart in range(restarts):
    for_start, for_search = jax.random.split(jax.random.fold_in(key, restart))
    start = dery_search.feasible_choice(for_start, blocks, fits, high)
    if start is None:
      break
    chosen, history = dery_search.ascend(for_search, blocks, start, fits, value)
    if best is None or history[-1] > best.score:
      best = Reassembly(
        tuple(block.piece for block in chosen),
        tuple(block.group for block in chosen),
        tuple(np.sum([block.cost for block in chosen], 0).tolist()),
        history[-1],
        tuple(history),
      )
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
) -> list[list[dery_search.Block]]:
  """Returns the candidates of position k: the k-th block of each network."""
  table: list[list[dery_search.Block]] = [[] for _ in partition.centres]
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
      table[k].append(dery_search.Block(piece, group, own))
  return table
