"""Adapters fitted to features."""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsl import stats, types
from wsl.stitch import _adapter, _resize, _segmented
from wsl.stitch._fit import closed_form, feature_moments


def fit(
  source: types.ArrayLike,
  target: types.ArrayLike,
  *,
  kind: str = 'affine',
  ridge: float | None = None,
  rank: int = 64,
  alpha: float = 1.0,
  scale: bool = False,
  key: types.PRNGKey | None = None,
) -> _adapter.Adapter:
  r"""Fits an adapter to the features of the same examples in two networks.

  Args:
    source: ``[B, ..., d]``, resized to the places of the target.
    target: ``[B, ..., m]``.
    kind: ``'affine'``, ``'orthogonal'``, ``'low_rank'``, ``'norm_conv'`` or
      ``'identity'``; these and the other hyperparameters are those of
      ``fit_moments``.
    ridge: see there.
    rank: see there.
    alpha: see there.
    scale: see there.
    key: see there.

  Returns:
    The adapter, which takes features like the source.

  Raises:
    ValueError: if there are no rows, the places cannot be resized, or as
      ``fit_moments``.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jnp.asarray([[0.0], [1.0], [2.0]])
    >>> adapter = fit(x, 3 * x + 1)
    >>> adapter.weight.round(4).tolist(), adapter.bias.round(4).tolist()
    ([[3.0]], [1.0])
  """
  x, y = jnp.asarray(source), jnp.asarray(target)
  if x.ndim < 2 or y.ndim < 2 or not x.size or len(x) != len(y):
    raise ValueError(
      f'fit: features of shapes {list(x.shape)} and {list(y.shape)}, expected '
      '[B, ..., d] and [B, ..., m] of the same B >= 1 examples'
    )
  grid = y.shape[1:-1]
  resized = _resize.resize(x, grid)
  found = stats.cross_moments(
    _source, _target, [{'x': resized, 'y': y}], similarity=False
  )
  return closed_form.fit_moments(
    dataclasses.replace(found[0, 0], grid=None if resized is x else grid),
    kind=kind,
    ridge=ridge,
    rank=rank,
    alpha=alpha,
    scale=scale,
    key=key,
  )


def fit_pairs(
  a: _segmented.Segmented,
  b: _segmented.Segmented,
  batches: Iterable[Any],
  *,
  pairs: Iterable[tuple[int, int]] | None = None,
  kind: str = 'affine',
  ridge: float | None = None,
  rank: int = 64,
  alpha: float = 1.0,
  scale: bool = False,
  key: types.PRNGKey | None = None,
) -> dict[tuple[int, int], _adapter.Adapter]:
  """Fits an adapter for each pair of positions of two networks.

  Args:
    a: the source.
    b: the target.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``; no
      labels are needed, and some hundred examples do, as long as their tokens
      or places are several times as many as the features.
    pairs: (position of a, position of b); all by default. The adapter of
      (p, q) takes a's value after p blocks to what b's block q is given.
    kind: see ``fit_moments``, as all that follow.
    ridge: see there.
    rank: see there.
    alpha: see there.
    scale: see there.
    key: see there; each pair has a random A of its own.

  Returns:
    By pair, its adapter.

  Raises:
    ValueError: as ``moments`` and ``fit_moments``, naming the pair.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stitch import Segmented
    >>> def same(params, h):
    ...   return h
    >>> def double(params, h):
    ...   return params * h
    >>> net = Segmented({'embed': {}, 'blocks': jnp.full(2, 2.0), 'head': {}},
    ...                 same, double, same)
    >>> data = [jnp.asarray([[1.0], [3.0]])]
    >>> fit_pairs(net, net, data, pairs=[(0, 2)])[0, 2].weight.round(4).tolist()
    [[4.0]]

  Reference:
    Pan et al., "Stitchable Neural Networks", 2023, arXiv:2302.06586, section
    3.3.

  Differs from the official code in streaming (that code inverts the matrix of
  all tokens), in giving each pair its own map, and in resizing.
  """
  found = feature_moments.moments(a, b, batches, pairs=pairs, similarity=False)
  return fit_each(
    found,
    kind=kind,
    ridge=ridge,
    rank=rank,
    alpha=alpha,
    scale=scale,
    key=key,
  )


def fit_each(
  moments: Mapping[tuple[int, int], types.CrossMoments],
  *,
  kind: str = 'affine',
  ridge: float | None = None,
  rank: int = 64,
  alpha: float = 1.0,
  scale: bool = False,
  key: types.PRNGKey | None = None,
) -> dict[tuple[int, int], _adapter.Adapter]:
  """Fits an adapter to each of the moments that ``moments`` gives.

  Args:
    moments: by pair.
    kind: see ``fit_moments``, as all that follow.
    ridge: see there.
    rank: see there.
    alpha: see there.
    scale: see there.
    key: see there; each pair has a random A of its own.

  Returns:
    By pair, its adapter.

  Raises:
    ValueError: as ``fit_moments``, naming the pair.
  """
  adapters = {}
  for pair, found in moments.items():
    own = key
    if key is not None:
      own = jax.random.fold_in(jax.random.fold_in(key, pair[0]), pair[1])
    try:
      adapters[pair] = closed_form.fit_moments(
        found,
        kind=kind,
        ridge=ridge,
        rank=rank,
        alpha=alpha,
        scale=scale,
        key=own,
      )
    except ValueError as error:
      raise ValueError(f'positions {pair}: {error}') from error
  return adapters


def _source(both: Any) -> list[types.Array]:
  return [both['x']]


def _target(both: Any) -> list[types.Array]:
  return [both['y']]
