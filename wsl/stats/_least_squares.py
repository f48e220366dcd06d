"""The affine least squares map and its residual, from moments."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stats import _least_norm


class LeastSquares(NamedTuple):
  r"""An affine map :math:`y = x W + b`, and its ridge.

  Attributes:
    weight: ``[d, m]``.
    bias: ``[m]``.
    ridge: ``[]``, the rho of the solution. If the covariance of x is singular,
      at least the share of a feature's variance below which a direction of x
      counts as constant; so with ``ridge=None`` it is 0 for regular covariances
      and above 0 for singular ones.
  """

  weight: types.Array
  bias: types.Array
  ridge: types.Array


def least_squares(
  moments: types.CrossMoments, *, ridge: float | None = None
) -> LeastSquares:
  r"""Solves for the affine map from x to y.

  .. math:: W = (C_{xx} + \lambda I)^{-1} C_{xy}, \quad
    b = \bar y - \bar x W, \quad \lambda = \rho \operatorname{tr}(C_{xx}) / d

  by a Cholesky factorisation of the correlations of x. If they are singular
  (fewer rows than features, a constant or repeated feature), by their
  eigenvalue decomposition:

  .. math:: W = C_{xx}^+ C_{xy},

  the solution of least norm. Directions whose variance is below
  :math:`8 d \epsilon`, of features scaled to variance 1, count as constant.
  The solution can be differentiated in both modes; of a singular covariance,
  along changes that keep its rank.

  Args:
    moments: of x and y.
    ridge: rho >= 0, in units of the mean variance of a feature of x. With
      ``None`` it is 0, and dependent features get the solution of least norm.

  Returns:
    The map and its ridge.

  Raises:
    ValueError: if ``ridge`` is negative; if it is given and too small for
      linearly dependent features; or if the features are not finite.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stats import cross_moments
    >>> x = jnp.asarray([[0.0], [1.0], [2.0]])
    >>> both = cross_moments(lambda x: [x], lambda x: [3 * x + 1], [x])
    >>> found = least_squares(both[0, 0])
    >>> found.weight.round(4).tolist(), found.bias.round(4).tolist()
    ([[3.0]], [1.0])
    >>> float(found.ridge)
    0.0
    >>> twice = cross_moments(lambda x: [x[:, [0, 0]]], lambda x: [x], [x])
    >>> least_squares(twice[0, 0]).weight.round(4).tolist()
    [[0.5], [0.5]]
  """
  tree.check_scalars('least_squares', ridge=ridge)
  if ridge is not None and ridge < 0:
    raise ValueError(
      f'least_squares(ridge={ridge}): a share of the variance, expected '
      'ridge >= 0'
    )
  found, finite, singular = _solve(
    moments, jnp.asarray(ridge or 0.0, moments.xx.dtype)
  )
  if isinstance(finite, jax.core.Tracer):
    return found
  if not finite:
    raise ValueError(
      'least_squares: the features are not finite, or their moments overflow: '
      'look for NaN in them, or scale them'
    )
  if ridge is not None and singular:
    d = moments.xx.shape[0]
    enough = _least_norm.cutoff(d, moments.xx.dtype)
    raise ValueError(
      f'least_squares(ridge={ridge}): the {d} features of x depend on each '
      f'other in {moments.count} rows: give more rows, a ridge from '
      f'{enough:.1e}, or None for the solution of least norm'
    )
  return found


def residual(
  moments: types.CrossMoments,
  *,
  weight: types.Array | None = None,
  ridge: float | None = None,
) -> types.Array:
  r"""Computes the fraction of the variance of y that a linear map of x leaves.

  .. math:: 1 - R^2 =
    \frac{\sum_i |\tilde y_i - W^\top \tilde x_i|^2}{\sum_i |\tilde y_i|^2}

  Args:
    moments: from ``cross_moments``.
    weight: W ``[d, m]``; by default that of ``least_squares``, which minimises
      the residual. The bias is the one that maps mean to mean.
    ridge: the ridge of ``least_squares``, if ``weight`` is not given.

  Returns:
    The residual, ``[]``: 0 if the map is exact, 1 if it is no better than the
    mean of y; NaN if y is constant.

  Raises:
    ValueError: if the moments were taken without ``similarity``, or for the
      reasons of ``least_squares``.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stats import cross_moments
    >>> x = jnp.asarray([[0.0], [1.0], [2.0], [3.0]])
    >>> found = cross_moments(lambda x: [x], lambda x: [x, x % 2], [x])
    >>> round(float(residual(found[0, 0])), 4)
    0.0
    >>> round(float(residual(found[0, 1])), 4)
    0.8
  """
  if moments.yy is None:
    raise ValueError(
      'residual: the moments of y are missing: take them with similarity=True'
    )
  if weight is None:
    weight = least_squares(moments, ridge=ridge).weight
  return _left(moments.xx, moments.xy, moments.yy, weight)


@jax.jit
def _solve(
  moments: types.CrossMoments, ridge: types.Array
) -> tuple[LeastSquares, types.Array, types.Array]:
  """Returns the map, if it is finite, and if the covariance is singular."""
  xx = moments.xx
  d, epsilon = xx.shape[0], jnp.finfo(xx.dtype).eps
  mean = jnp.trace(xx) / d
  unit = jnp.where(mean > 0, mean, 1)
  # The variance of a constant feature is rounding of this size.
  constant = jnp.square(8 * epsilon * moments.mean_x)
  shifted = xx + ridge * unit * jnp.eye(d, dtype=xx.dtype)
  weight, singular = _least_norm.solve(
    shifted, moments.xy, jax.lax.stop_gradient(constant)
  )
  shift = tree.matmul(moments.mean_x, weight)
  cutoff = singular * _least_norm.cutoff(d, xx.dtype)
  found = LeastSquares(
    weight, moments.mean_y - shift, jnp.maximum(ridge, cutoff)
  )
  return found, jnp.all(jnp.isfinite(weight)), singular > 0


@jax.jit
def _left(
  xx: types.Array, xy: types.Array, yy: types.Array, weight: types.Array
) -> types.Array:
  """Computes (tr C_yy - 2 tr W^T C_xy + tr W^T C_xx W) / tr C_yy."""
  mapped = tree.matmul(xx, weight)
  total = jnp.trace(yy)
  left = total + jnp.sum(weight * (mapped - 2 * xy))
  return jnp.maximum(left, 0) / total
