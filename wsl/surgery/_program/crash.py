"""CRaSh: clusters of adjacent blocks, one block kept of each."""

from collections.abc import Iterable, Sequence
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import stats, stitch, tree, types
from wsl.surgery._program import program as program_lib

_MODES = ('remove', 'share')


def block_similarities(
  model: stitch.Segmented,
  batches: Iterable[Any],
  *,
  pool: str = 'mean',
  unbiased: bool = False,
) -> np.ndarray:
  r"""Computes the similarity of the outputs of adjacent blocks.

  .. math:: s_i = \operatorname{CKA}(h_{i+1}, h_{i+2}), \qquad
    i = 0 \dots L - 2

  Args:
    model: a network of L blocks, h ``[B, ..., d]``.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``.
    pool: the row of an example: ``'mean'`` over its tokens or places,
      ``'last'``, the last token; ``'none'``: each token is a row.
    unbiased: the estimate of ``stats.cka``; the authors' is biased.

  Returns:
    Similarities ``[L - 1]`` of block i to block i + 1, in float64.

  Raises:
    ValueError: if there are fewer than two blocks, no batches, or ``pool`` is
      unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stitch
    >>> same = lambda p, h: h
    >>> turn = lambda p, h: h @ p
    >>> blocks = jnp.asarray([[[0.0, 1.0], [-1.0, 0.0]]] * 2)
    >>> model = stitch.Segmented(
    ...   {'embed': {}, 'blocks': blocks, 'head': {}}, same, turn, same)
    >>> x = jnp.asarray([[0.0, 1.0], [2.0, 0.5], [1.0, 4.0], [3.0, 3.0]])
    >>> block_similarities(model, [x]).round(6).tolist()
    [1.0]

  Reference:
    Kornblith et al., "Similarity of Neural Network Representations Revisited",
    2019, arXiv:1905.00414.
  """
  depth = model.depth
  if depth < 2:
    raise ValueError('block_similarities: the network has fewer than 2 blocks')
  if pool not in _POOLS:
    hint = tree.nearest(str(pool), list(_POOLS))
    raise ValueError(
      f'block_similarities: pool={pool!r}: expected one of {list(_POOLS)}{hint}'
    )
  features = jax.tree_util.Partial(_POOLS[pool], model)
  pairs = [(i + 1, i + 2) for i in range(depth - 1)]
  moments = stats.cross_moments(features, features, batches, pairs=pairs)
  found = [stats.cka(moments[pair], unbiased=unbiased) for pair in pairs]
  return np.asarray(found, np.float64)


def _mean_rows(model: stitch.Segmented, inputs: Any) -> list[types.Array]:
  """Returns the mean features of each example, ``[B, d]``."""
  features = [tree.wide(h) for h in stitch.features(model, inputs)]
  return [jnp.mean(h, tuple(range(1, h.ndim - 1))) for h in features]


def _last_rows(model: stitch.Segmented, inputs: Any) -> list[types.Array]:
  """Returns the features of the last place of each example, ``[B, d]``."""
  features = stitch.features(model, inputs)
  return [h.reshape(h.shape[0], -1, h.shape[-1])[:, -1] for h in features]


_POOLS = {
  'mean': _mean_rows,
  'last': _last_rows,
  'none': stitch.features,
}


def block_clusters(
  similarities: types.ArrayLike, *, clusters: int
) -> tuple[tuple[int, int], ...]:
  """Clusters adjacent blocks by the similarity of their outputs.

  Beginning with one cluster for each block, the two adjacent clusters are
  united whose blocks at the boundary are most similar, until ``clusters`` are
  left.

  Args:
    similarities: of each block to the next, ``[L - 1]``.
    clusters: their number, 1 .. L.

  Returns:
    Ranges ``(start, stop)`` of blocks, which partition 0 .. L - 1.

  Raises:
    ValueError: if there cannot be so many clusters, or a value is NaN.

  Example:
    >>> block_clusters([0.9, 0.1, 0.8], clusters=2)
    ((0, 2), (2, 4))

  Reference:
    Zhang et al., "CRaSh: Clustering, Removing, and Sharing Enhance Fine-tuning
    without Full Large Language Model", 2023, arXiv:2310.15477.
  """
  values = np.asarray(similarities, np.float64)
  if values.ndim != 1 or np.isnan(values).any():
    raise ValueError(
      f'block_clusters: similarities {list(values.shape)}: expected one number '
      'for each block but the last, none of them NaN'
    )
  depth = len(values) + 1
  tree.check_whole('block_clusters', clusters=clusters)
  if not 1 <= clusters <= depth:
    raise ValueError(
      f'block_clusters: clusters={clusters} of {depth} blocks: expected 1 .. '
      f'{depth}'
    )
  # The blocks at the boundary of two adjacent clusters are i and i + 1, in
  # whichever order other clusters were united. So the agglomeration removes the
  # boundaries of the L - clusters largest similarities, earlier ones first.
  order = np.argsort(-values, kind='stable')
  cuts = sorted(int(i) + 1 for i in order[depth - clusters :])
  edges = [0, *cuts, depth]
  return tuple(itertools.pairwise(edges))


def crash(
  clusters: Sequence[tuple[int, int]], *, mode: str = 'remove'
) -> program_lib.Program:
  r"""Keeps one block of each cluster, :math:`\lfloor |c| / 2 \rfloor`.

  Args:
    clusters: ranges of blocks, from ``block_clusters``.
    mode: ``'remove'``: the network of the kept blocks, an emulator on which a
      part is fine-tuned. ``'share'``: the full depth, each removed block
      replaced by the nearest kept one; the right one, unless the left one is
      nearer. Copies of a block are tied.

  Returns:
    The program.

  Raises:
    ValueError: if the ranges are no partition, or the mode is unknown.

  Example:
    >>> clusters = block_clusters([0.9, 0.8, 0.1], clusters=2)
    >>> [x.sources[0] for x in crash(clusters).layers]
    [1, 3]
    >>> [x.sources[0] for x in crash(clusters, mode='share').layers]
    [1, 1, 3, 3]

  Reference:
    Zhang et al., "CRaSh: Clustering, Removing, and Sharing Enhance Fine-tuning
    without Full Large Language Model", 2023, arXiv:2310.15477.

  Differs from the official code in that a block removed beyond the last kept
  one is replaced by that one; a note in the code leaves this case open.
  """
  edges = [0, *(stop for _, stop in clusters)]
  ranges = [*itertools.pairwise(edges)]
  empty = any(start >= stop for start, stop in ranges)
  if not clusters or empty or [*clusters] != ranges:
    raise ValueError(
      f'crash: clusters={list(clusters)[:4]}: expected ranges (start, stop) '
      'that follow each other from 0'
    )
  if mode not in _MODES:
    raise ValueError(f'crash: mode={mode!r}: expected one of {_MODES}')
  kept = [start + (stop - start) // 2 for start, stop in clusters]
  if mode == 'remove':
    return program_lib.program_of(edges[-1], kept)
  # Of two kept blocks at one distance the later has the greater number.
  nearest = [
    min(kept, key=lambda k: (abs(k - i), -k)) for i in range(edges[-1])
  ]
  layers = tuple(
    program_lib.Layer((k,), tied=k if nearest.count(k) > 1 else None)
    for k in nearest
  )
  return program_lib.check_program(program_lib.Program(edges[-1], layers))
