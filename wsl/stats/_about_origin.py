"""Moments of two sets of features about the origin."""

import dataclasses

import jax

from wsl import types


def about_origin(moments: types.CrossMoments) -> types.CrossMoments:
  r"""Returns second moments in place of covariances, with means 0.

  .. math:: C_{xy} + \bar x \bar y^\top = \frac{1}{n} \sum_{i=1}^{n} x_i
    y_i^\top

  From them ``cka(..., unbiased=False)``, ``cca``, ``residual`` and
  ``least_squares`` are those of features that are not centred, and maps have
  bias 0. DeRy's linear regression similarity is ``1 - residual``.

  Args:
    moments: from ``cross_moments``.

  Returns:
    The moments, without ``norms``: the unbiased ``cka`` is invariant to
    translations, so it is that of the moments given.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stats import cross_moments, least_squares, residual
    >>> x = jnp.asarray([[1.0], [3.0]])
    >>> found = about_origin(
    ...   cross_moments(lambda x: [x], lambda x: [x + 1], [x])[0, 0])
    >>> found.mean_x.tolist(), found.xx.tolist(), found.xy.tolist()
    ([0.0], [[5.0]], [[7.0]])
    >>> map_ = least_squares(found)
    >>> print(f'{map_.weight.item():.2f} {map_.bias.item():.2f}')
    1.40 0.00

  Reference:
    Yang et al., "Deep Model Reassembly", 2022, arXiv:2210.17409 (similarities
    of networks).
  """
  return _about_origin(moments)


@jax.jit
def _about_origin(moments: types.CrossMoments) -> types.CrossMoments:
  """Adds the products of means to the covariances."""
  x, y = moments.mean_x, moments.mean_y
  return dataclasses.replace(
    moments,
    mean_x=0 * x,
    mean_y=0 * y,
    xx=moments.xx + x[:, None] * x[None],
    xy=moments.xy + x[:, None] * y[None],
    yy=None if moments.yy is None else moments.yy + y[:, None] * y[None],
    norms=None,
  )
