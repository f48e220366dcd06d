"""Adapters fitted to features."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from wsl import stats, types
from wsl.stitch import _adapter, _resize
from wsl.stitch._fit import closed_form


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


def _source(both: Any) -> list[types.Array]:
  return [both['x']]


def _target(both: Any) -> list[types.Array]:
  return [both['y']]
