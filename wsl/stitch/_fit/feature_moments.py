"""Moments of two segmented networks at pairs of positions."""

from collections.abc import Iterable
import dataclasses
import itertools
from typing import Any

import jax

from wsl import batches as batches_lib
from wsl import stats, types
from wsl.stitch import _resize, _segmented


def moments(
  a: _segmented.Segmented,
  b: _segmented.Segmented,
  batches: Iterable[Any],
  *,
  pairs: Iterable[tuple[int, int]] | None = None,
  similarity: bool = True,
) -> dict[tuple[int, int], types.CrossMoments]:
  """Computes cross moments of the features at positions of two networks.

  They are the input of ``fit_moments``, ``stats.cka``, ``stats.cca`` and
  ``stats.residual``. One pass of the data through each network computes the
  moments of all pairs.

  Args:
    a: the source.
    b: the target.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``.
    pairs: (position of a, position of b), from 0, after the embedding, to the
      depth; all by default. If the middle axes differ (images or tokens of
      another resolution), the source's features are resized to the target's.
    similarity: whether to compute ``yy`` and ``norms`` too, which the
      similarity measures need and adapters do not.

  Returns:
    Moments for each pair.

  Raises:
    ValueError: if there are no batches, a position does not exist, or features
      cannot be resized.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stitch import Segmented
    >>> def same(params, h):
    ...   return h
    >>> def double(params, h):
    ...   return params * h
    >>> net = Segmented({'embed': {}, 'blocks': jnp.full(2, 2.0), 'head': {}},
    ...                 same, double, same)
    >>> found = moments(net, net, [jnp.asarray([[1.0], [3.0]])])
    >>> len(found), found[0, 2].xy.tolist()
    (9, [[4.0]])
  """
  stream = batches_lib.stream(batches, name='moments')
  first = next(stream)
  inputs = batches_lib.inputs_of(first)
  xs = jax.eval_shape(_segmented.features, a, inputs)
  ys = jax.eval_shape(_segmented.features, b, inputs)
  chosen = list(itertools.product(range(len(xs)), range(len(ys))))
  if pairs is not None:
    chosen = _checked(list(pairs), chosen)
  grids = {
    (p, q): None if xs[p].shape[1:-1] == y.shape[1:-1] else y.shape[1:-1]
    for p, q in chosen
    for y in [ys[q]]
  }
  # A source position is one site for each grid that it is resized to, so that
  # every distinct array is computed once.
  sites = list(dict.fromkeys((p, grid) for (p, _), grid in grids.items()))
  index = {pair: sites.index((pair[0], grids[pair])) for pair in chosen}
  found = stats.cross_moments(
    jax.tree_util.Partial(_Source(tuple(sites)), a),
    jax.tree_util.Partial(_segmented.features, b),
    itertools.chain([first], stream),
    pairs=[(index[pair], pair[1]) for pair in chosen],
    similarity=similarity,
  )
  return {
    pair: dataclasses.replace(found[index[pair], pair[1]], grid=grids[pair])
    for pair in chosen
  }


@dataclasses.dataclass(frozen=True)
class _Source:
  """Computes features at (position, grid), resized unless grid is None."""

  sites: tuple[tuple[int, tuple[int, ...] | None], ...]

  def __call__(
    self, model: _segmented.Segmented, inputs: Any
  ) -> list[types.Array]:
    values = _segmented.features(model, inputs)
    return [
      values[p] if grid is None else _resize.resize(values[p], grid)
      for p, grid in self.sites
    ]


def _checked(
  pairs: list[tuple[int, int]], every: list[tuple[int, int]]
) -> list[tuple[int, int]]:
  """Checks that pairs of positions exist; drops repetitions."""
  for pair in pairs:
    if tuple(pair) not in every:
      raise ValueError(
        f'no pair {pair} of positions: the source has 0 .. {every[-1][0]}, '
        f'the target 0 .. {every[-1][1]}'
      )
  return list(dict.fromkeys(pairs))
