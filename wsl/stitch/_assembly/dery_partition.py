"""DeRy's partition: blocks of many networks in groups that do the same work."""

from collections.abc import Callable, Mapping
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from wsl.stitch._routes import routing

_LEAST_GAIN = 1e-9  # a smaller one is rounding, and could go on for ever


class Partition(NamedTuple):
  """Networks cut into K blocks each, and the blocks in K groups.

  Attributes:
    pieces: for each network its K blocks, in their order.
    groups: for each network the group of each block, 0 .. K - 1.
    centres: for each group the block that the others resemble most.
    similarity: of all blocks to the centres of their groups, summed; a block's
      is at most 2.
    history: the same after each accepted move of the best restart.
  """

  pieces: Mapping[str, tuple[routing.Piece, ...]]
  groups: Mapping[str, tuple[int, ...]]
  centres: tuple[routing.Piece, ...]
  similarity: float
  history: tuple[float, ...]


class _State(NamedTuple):
  """Cuts ``[M, K + 1]``, groups ``[M K]`` of all blocks, centres ``[K]``."""

  cuts: np.ndarray
  groups: np.ndarray
  centres: np.ndarray


def partition(
  similarity: np.ndarray,
  depths: Mapping[str, int],
  *,
  count: int = 4,
  slack: float = 0.2,
  restarts: int = 200,
  iterations: int = 200,
  seed: int = 0,
) -> Partition:
  r"""Cuts networks into blocks that have counterparts in other networks.

  .. math:: \max \sum_b s(b, c_{g(b)}), \quad s(b, c) = S_{\mathrm{first}(b),
    \mathrm{first}(c)} + S_{\mathrm{last}(b), \mathrm{last}(c)}

  Each network is cut into K stretches of at least one node and at most
  ``ceil(D / K) (1 + slack)``. From random cuts and centres, three moves take
  turns until none is left: a cut goes one node aside, a group's centre becomes
  its medoid, a block joins the most similar centre. Each is made only if the
  sum rises. Two blocks of one network have similarity 0, so that a group holds
  counterparts and not neighbours; a block resembles itself as ``S`` says.

  Args:
    similarity: ``S [N, N]``, symmetric, of all nodes, network by network; a
      node is the value after one block, as in ``stats.cka``.
    depths: nodes of each network, by name, in the order of the rows.
    count: the number K of blocks of a network, and of groups.
    slack: how far a block may exceed an equal share, as a fraction of it.
    restarts: random beginnings, the best is kept.
    iterations: rounds of the three moves at most.
    seed: of the beginnings; the same seed gives the same partition.

  Returns:
    The partition.

  Raises:
    ValueError: if ``S`` is not ``[N, N]``, finite and symmetric, or if a
      network cannot be cut so.

  Example:
    >>> kind = np.array([0, 0, 1, 0, 1, 1])  # of two networks of three nodes
    >>> same = (kind[:, None] == kind[None]).astype(float)
    >>> found = partition(same, {'a': 3, 'b': 3}, count=2, restarts=5)
    >>> [(p.start, p.stop) for p in found.pieces['a']], found.similarity
    ([(0, 2), (2, 3)], 8.0)

  Reference:
    Yang et al., "Deep Model Reassembly", 2022, arXiv:2210.17409.

  Differs from the official code in the similarity of blocks: there a test for
  blocks of one network compares a name with itself, so that any two blocks at
  different positions, of different networks too, have similarity 0, and a block
  has 1 with itself while it may have 2 with another. Here only different blocks
  of one network have 0, and the formula gives what a block has with itself.
  There a cut is moved by the similarity to centres that stay where they were;
  here a centre is a block, and moves with its cuts.
  """
  nodes = _check(similarity, depths, count, slack)
  random = np.random.RandomState(seed)
  best: tuple[float, _State, list[float]] | None = None
  for _ in range(restarts):
    state = _begin(random, list(depths.values()), count, nodes.most)
    found = _climb(nodes, state, iterations)
    if best is None or found[0] > best[0]:
      best = found
  if best is None:
    raise ValueError(f'partition: restarts={restarts}: expected 1 or more')
  value, state, history = best
  blocks = [
    routing.Piece(name, int(start), int(stop))
    for name, cuts in zip(depths, state.cuts)
    for start, stop in itertools.pairwise(cuts)
  ]
  rows = {
    name: slice(i * count, (i + 1) * count) for i, name in enumerate(depths)
  }
  return Partition(
    {name: tuple(blocks[row]) for name, row in rows.items()},
    {name: tuple(state.groups[row].tolist()) for name, row in rows.items()},
    tuple(blocks[c] for c in state.centres),
    value,
    tuple(history),
  )


class _Nodes(NamedTuple):
  """Similarities, where each network begins, and its longest block."""

  similarity: np.ndarray
  first: np.ndarray
  most: list[int]


def _check(
  similarity: np.ndarray, depths: Mapping[str, int], count: int, slack: float
) -> _Nodes:
  table = np.asarray(similarity, np.float64)
  total = sum(depths.values())
  if table.shape != (total, total) or not total:
    raise ValueError(
      f'partition: similarity is {list(table.shape)}, the depths add up to '
      f'{total}: expected [{total}, {total}]'
    )
  if not np.isfinite(table).all() or not np.allclose(table, table.T):
    raise ValueError('partition: similarity must be finite and symmetric')
  if slack < 0:
    raise ValueError(f'partition: slack={slack}: expected 0 or more')
  for name, depth in depths.items():
    if not 1 <= count <= depth:
      raise ValueError(
        f'partition: count={count}: expected 1 .. {depth}, the depth of '
        f"'{name}'"
      )
  sizes = list(depths.values())
  first = np.cumsum([0, *sizes[:-1]])
  return _Nodes(
    table, first, [int(math.ceil(d / count) * (1 + slack)) for d in sizes]
  )


def _begin(
  random: np.random.RandomState, depths: list[int], count: int, most: list[int]
) -> _State:
  """Draws cuts within the bounds, and centres."""
  cuts = np.zeros((len(depths), count + 1), np.int64)
  for row, depth, longest in zip(cuts, depths, most):
    for k in range(count):
      left, rest = depth - row[k], count - 1 - k
      least = max(1, left - rest * longest)
      row[k + 1] = row[k] + random.randint(least, min(longest, left - rest) + 1)
  blocks = len(depths) * count
  centres = random.permutation(blocks)[:count]
  return _State(cuts, random.randint(count, size=blocks), centres)


def _table(nodes: _Nodes, cuts: np.ndarray) -> np.ndarray:
  """Returns the similarity of all blocks, ``[M K, M K]``."""
  count = cuts.shape[1] - 1
  first = (cuts[:, :-1] + nodes.first[:, None]).ravel()
  last = (cuts[:, 1:] + nodes.first[:, None]).ravel() - 1
  s = nodes.similarity
  table = s[np.ix_(first, first)] + s[np.ix_(last, last)]
  network = np.arange(len(first)) // count
  same = network[:, None] == network[None]
  return np.where(same & ~np.eye(len(first), dtype=bool), 0.0, table)


def _value(nodes: _Nodes, state: _State) -> float:
  table = _table(nodes, state.cuts)
  mine = state.centres[state.groups]
  return float(table[np.arange(len(mine)), mine].sum())


def _climb(
  nodes: _Nodes, state: _State, iterations: int
) -> tuple[float, _State, list[float]]:
  """Makes moves until none raises the sum."""
  state = _reassign(nodes, state)
  history = [_value(nodes, state)]
  networks, cuts = range(len(state.cuts)), range(1, state.cuts.shape[1] - 1)
  moves: list[Callable[[_Nodes, _State], _State]] = [
    functools.partial(_shift, network=m, cut=k, step=step)
    for m, k, step in itertools.product(networks, cuts, (-1, 1))
  ]
  for _ in range(iterations):
    before = len(history)
    for move in (*moves, _recentre, _reassign):
      proposed = move(nodes, state)
      value = _value(nodes, proposed)
      if value > history[-1] + _LEAST_GAIN:
        state = proposed
        history.append(value)
    if len(history) == before:
      break
  return history[-1], state, history


def _shift(
  nodes: _Nodes, state: _State, *, network: int, cut: int, step: int
) -> _State:
  """Moves one cut, if both blocks keep to their bounds."""
  cuts = state.cuts.copy()
  cuts[network, cut] += step
  sizes = np.diff(cuts[network])
  fits = sizes.min() >= 1 and sizes.max() <= nodes.most[network]
  return state._replace(cuts=cuts) if fits else state


def _recentre(nodes: _Nodes, state: _State) -> _State:
  """Makes the medoid of each group its centre."""
  table = _table(nodes, state.cuts)
  centres = state.centres.copy()
  for g in range(len(centres)):
    own = np.flatnonzero(state.groups == g)
    centres[g] = own[np.argmax(table[np.ix_(own, own)].sum(0))]
  return state._replace(centres=centres)


def _reassign(nodes: _Nodes, state: _State) -> _State:
  """Gives each block to the most similar centre; centres keep their groups."""
  to_centres = _table(nodes, state.cuts)[:, state.centres]
  groups = np.argmax(to_centres, 1)
  groups[state.centres] = np.arange(len(state.centres))
  return state._replace(groups=groups)
