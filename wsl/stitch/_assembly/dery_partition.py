"""DeRy's partition: networks cut into blocks, and blocks into clusters.

Coordinate ascent (``dery_ascent``) from random starts finds a local maximum of
the similarity within clusters; the best of all starts is kept.
"""

from collections.abc import Mapping
import itertools
import math
from typing import NamedTuple

import jax
import numpy as np

from wsl import deprecation, types
from wsl.stitch._assembly import dery_ascent
from wsl.stitch._routes import routing


class Partition(NamedTuple):
  """Networks cut into K blocks each, and the blocks clustered in K groups.

  Attributes:
    pieces: for each network its K blocks, in order of depth.
    groups: for each network the group of each block, 0 .. K - 1.
    centres: for each group its medoid, the block most similar to the others.
    similarity: sum over blocks of the similarity to the centre of their group;
      each term is at most 2 for similarities of at most 1.
    history: the sum after each accepted move of the best restart; increasing.
  """

  pieces: Mapping[str, tuple[routing.Piece, ...]]
  groups: Mapping[str, tuple[int, ...]]
  centres: tuple[routing.Piece, ...]
  similarity: float
  history: tuple[float, ...]


def partition(
  similarity: np.ndarray,
  depths: Mapping[str, int],
  *,
  key: types.PRNGKey | None = None,
  count: int = 4,
  slack: float = 0.2,
  restarts: int = 200,
  iterations: int = 200,
  seed: int | None = None,
) -> Partition:
  r"""Cuts networks into blocks that have counterparts in other networks.

  .. math:: \max \sum_b s(b, c_{g(b)}), \quad s(b, c) = S_{\mathrm{first}(b),
    \mathrm{first}(c)} + S_{\mathrm{last}(b), \mathrm{last}(c)}

  Each network is cut into K blocks of at least one node and at most
  ``ceil(D / K) (1 + slack)`` nodes. Coordinate ascent from random cuts and
  centres alternates three moves until none raises the sum: shift a cut by one
  node, make the medoid of a group its centre, assign each block to the most
  similar centre. Two different blocks of one network have similarity 0, so that
  a group collects counterparts in other networks and not neighbours. The
  formula also gives the similarity of a block to itself.

  Args:
    similarity: ``S [N, N]``, symmetric, of all nodes, network by network; a
      node is the value after one block. ``stats.cka`` and ``stats.rbf_cka`` are
      symmetric, official with ``unbiased=False``. Linear regression is
      ``1 - stats.residual``, of features that are not centred in the official
      code, see ``stats.about_origin``: average both directions.
    depths: number of nodes of each network, by name, in the order of the rows.
    key: source of the random starts, required; a key determines the result.
    count: the number K of blocks of each network, and of groups.
    slack: how far a block may exceed an equal share, as a fraction of it.
    restarts: number of random starts, of which the best result is kept.
    iterations: maximal number of rounds of the three moves.
    seed: deprecated: ``key=jax.random.key(seed)``.

  Returns:
    The partition.

  Raises:
    TypeError: if no key is given.
    ValueError: if ``S`` is not ``[N, N]``, finite and symmetric, or if a
      network cannot be cut within the bounds.

  Example:
    >>> kind = np.array([0, 0, 1, 0, 1, 1])  # of two networks of three nodes
    >>> same = (kind[:, None] == kind[None]).astype(float)
    >>> found = partition(same, {'a': 3, 'b': 3}, key=jax.random.key(0),
    ...                   count=2, restarts=5)
    >>> [(p.start, p.stop) for p in found.pieces['a']], found.similarity
    ([(0, 2), (2, 3)], 8.0)

  Reference:
    Yang et al., "Deep Model Reassembly", 2022, arXiv:2210.17409.

  Differs from the official code in the similarity of blocks. Its test for
  blocks of one network compares a name with itself, so any two blocks at
  different positions have similarity 0, even of different networks, and a block
  has similarity 1 with itself, below the maximum of 2. Here only different
  blocks of one network have 0. The code also shifts a cut by the similarity to
  fixed centres; here a centre is a block, and its ends move with the cuts.
  """
  key = deprecation.key_or_seed('stitch.partition', key, seed)
  nodes = _check(similarity, depths, count, slack)
  if restarts < 1:
    raise ValueError(f'partition: restarts={restarts}: expected 1 or more')
  sizes = list(depths.values())
  shares, centres = _draw(key, restarts, len(sizes), count)
  climbs = (
    dery_ascent.climb(nodes, _cuts(own, sizes, nodes.most), start, iterations)
    for own, start in zip(shares, centres)
  )
  value, state, history = max(climbs, key=lambda found: found[0])
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


def _check(
  similarity: np.ndarray, depths: Mapping[str, int], count: int, slack: float
) -> dery_ascent.Nodes:
  """Checks the arguments and returns them as arrays."""
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
  return dery_ascent.Nodes(
    table, first, [int(math.ceil(d / count) * (1 + slack)) for d in sizes]
  )


def _draw(
  key: types.PRNGKey, restarts: int, networks: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Draws the random starts: shares ``[R, M, K]`` in 0 .. 1, centres [R, K]."""
  for_cuts, for_centres = jax.random.split(key)
  shares = jax.random.uniform(for_cuts, (restarts, networks, count))
  choose = lambda key: jax.random.permutation(key, networks * count)[:count]
  centres = jax.vmap(choose)(jax.random.split(for_centres, restarts))
  return np.asarray(shares, np.float64), np.asarray(centres)


def _cuts(shares: np.ndarray, depths: list[int], most: list[int]) -> np.ndarray:
  """Turns shares ``[M, K]`` into cuts ``[M, K + 1]`` within the bounds."""
  count = shares.shape[1]
  cuts = np.zeros((len(depths), count + 1), np.int64)
  for row, own, depth, longest in zip(cuts, shares, depths, most):
    for k in range(count):
      # The later blocks must be able to hold the nodes that block k leaves, and
      # each needs one node.
      left, rest = depth - row[k], count - 1 - k
      shortest = max(1, left - rest * longest)
      choices = min(longest, left - rest) + 1 - shortest
      row[k + 1] = row[k] + shortest + int(own[k] * choices)
  return cuts
