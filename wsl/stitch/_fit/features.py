"""Adapters fitted to features: of two arrays, or of two networks."""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

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
    source: ``[B, ..., d]``; its middle axes (tokens, or the height and width of
      an image) are resized to those of the target.
    target: ``[B, ..., m]``.
    kind: ``'affine'``, ``'orthogonal'``, ``'low_rank'``, ``'norm_conv'`` or
      ``'identity'``, see ``fit_moments``.
    ridge: see ``fit_moments``.
    rank: see ``fit_moments``.
    alpha: see ``fit_moments``.
    scale: see ``fit_moments``.
    key: see ``fit_moments``.

  Returns:
    The adapter, which takes features of the source's shape.

  Raises:
    ValueError: if there are no rows, the middle axes cannot be resized, or as
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
  fitter = closed_form.Fitter(kind, ridge, rank, alpha, key, scale)
  grid = y.shape[1:-1]
  resized = _resize.resize(x, grid)
  found = stats.cross_moments(
    _source, _target, [{'x': resized, 'y': y}], similarity=False
  )
  moments = dataclasses.replace(
    found[0, 0], grid=None if resized is x else grid
  )
  return fitter(moments)


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
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``. Labels
      are not used. A few hundred examples suffice if the number of their rows
      (tokens, pixels) is several times the number of features.
    pairs: (position of a, position of b); all by default. The adapter of
      (p, q) maps a's value after p blocks to the input of b's block q.
    kind: see ``fit_moments``.
    ridge: see ``fit_moments``.
    rank: see ``fit_moments``.
    alpha: see ``fit_moments``.
    scale: see ``fit_moments``.
    key: see ``fit_moments``; each pair draws its own A.

  Returns:
    An adapter for each pair.

  Raises:
    ValueError: as ``moments`` and ``fit_moments``, naming the pair.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stitch import Segmented
    >>> same, double = lambda _, h: h, lambda params, h: params * h
    >>> net = Segmented({'embed': {}, 'blocks': jnp.full(2, 2.0), 'head': {}},
    ...                 same, double, same)
    >>> data = [jnp.asarray([[1.0], [3.0]])]
    >>> fit_pairs(net, net, data, pairs=[(0, 2)])[0, 2].weight.round(4).tolist()
    [[4.0]]

  Reference:
    Pan et al., "Stitchable Neural Networks", 2023, arXiv:2302.06586, section
    3.3.

  Differs from the official code: moments are streamed, where that code inverts
  the matrix of all tokens; each pair has its own map; features are resized.
  """
  fitter = closed_form.Fitter(kind, ridge, rank, alpha, key, scale)
  found = feature_moments.moments(a, b, batches, pairs=pairs, similarity=False)
  return _fit_each(found, fitter)


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
  """Fits an adapter to the moments of each pair of positions.

  Args:
    moments: the moments of each pair, from ``moments``.
    kind: see ``fit_moments``.
    ridge: see ``fit_moments``.
    rank: see ``fit_moments``.
    alpha: see ``fit_moments``.
    scale: see ``fit_moments``.
    key: see ``fit_moments``; each pair draws its own A.

  Returns:
    An adapter for each pair.

  Raises:
    ValueError: as ``fit_moments``, naming the pair.
  """
  fitter = closed_form.Fitter(kind, ridge, rank, alpha, key, scale)
  return _fit_each(moments, fitter)


def _fit_each(
  moments: Mapping[tuple[int, int], types.CrossMoments],
  fitter: closed_form.Fitter,
) -> dict[tuple[int, int], _adapter.Adapter]:
  """Fits the adapter of each pair, with a key folded from its positions."""
  adapters = {}
  for pair, found in moments.items():
    try:
      adapters[pair] = fitter.fold_in(*pair)(found)
    except ValueError as error:
      raise ValueError(f'positions {pair}: {error}') from error
  return adapters


def _source(both: Any) -> list[types.Array]:
  """Returns the source's features of a batch, for ``stats.cross_moments``."""
  return [both['x']]


def _target(both: Any) -> list[types.Array]:
  """Returns the target's features of a batch."""
  return [both['y']]
