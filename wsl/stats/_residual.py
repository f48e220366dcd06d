"""What a linear map of one set of features leaves of another."""

import jax
import jax.numpy as jnp

from wsl import types
from wsl.stats import _least_squares


def residual(
  moments: types.CrossMoments,
  *,
  weight: types.Array | None = None,
  ridge: float | None = None,
) -> types.Array:
  r"""Computes the share of the variance of y that a map of x leaves.

  .. math:: 1 - R^2 =
    \frac{\sum_i |\tilde y_i - W^\top \tilde x_i|^2}{\sum_i |\tilde y_i|^2}

  Args:
    moments: from ``cross_moments``.
    weight: W ``[d, m]``; by default that of ``least_squares``, which has the
      least residual. The bias is taken to map mean to mean.
    ridge: of the least squares.

  Returns:
    The residual, ``[]``: 0 if the map is exact, 1 if it is no better than the
    mean of y; NaN if y is constant.

  Raises:
    ValueError: if the moments were taken without ``similarity``, or as
      ``least_squares``.

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
      'residual: the moments lack those of y: take them with similarity=True'
    )
  if weight is None:
    weight = _least_squares.least_squares(moments, ridge=ridge).weight
  return _left(moments.xx, moments.xy, moments.yy, weight)


@jax.jit
def _left(
  xx: types.Array, xy: types.Array, yy: types.Array, weight: types.Array
) -> types.Array:
  mapped = jnp.matmul(xx, weight, precision='highest')
  total = jnp.trace(yy)
  left = total + jnp.sum(weight * (mapped - 2 * xy))
  return jnp.maximum(left, 0) / total
