"""Centred kernel alignment from streamed moments."""

import functools

import jax
import jax.numpy as jnp

from wsl import types


def cka(moments: types.CrossMoments, *, unbiased: bool = True) -> types.Array:
  r"""Computes the linear centred kernel alignment of two sets of features.

  .. math:: \frac{\operatorname{HSIC}(K, L)}
    {\sqrt{\operatorname{HSIC}(K, K) \operatorname{HSIC}(L, L)}}, \quad
    K = X X^\top, \quad L = Y Y^\top

  It is invariant to rotation, translation and isotropic scaling of either set.
  The biased estimate has :math:`\operatorname{HSIC} = \|C_{xy}\|^2` and tends
  to 1 for any features as their number outgrows the rows; the unbiased one is

  .. math:: \operatorname{HSIC}_1 = \frac{1}{n (n - 3)} \Big(
    \operatorname{tr} \tilde K \tilde L + \frac{1^\top \tilde K 1 \,
    1^\top \tilde L 1}{(n - 1)(n - 2)} - \frac{2}{n - 2}
    1^\top \tilde K \tilde L 1 \Big)

  where :math:`\tilde K` and :math:`\tilde L` are K and L with zero diagonals.
  It is computed from the covariances and the means of
  :math:`|\tilde x|^2 |\tilde y|^2` over centred rows, without a matrix of rows
  by rows.

  Args:
    moments: from ``cross_moments``.
    unbiased: whether to correct the bias; the value may then be below 0.

  Returns:
    The alignment, ``[]``: 1 for equal features, about 0 for independent ones;
    NaN if either set of features is constant.

  Raises:
    ValueError: if the moments were taken without ``similarity``, or there are
      fewer than 4 rows for the unbiased estimate.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stats import cross_moments
    >>> x = jnp.asarray([[0.0, 1.0], [1.0, 3.0], [2.0, 0.0], [5.0, 1.0]])
    >>> found = cross_moments(lambda x: [x], lambda x: [x, x[:, :1]], [x])
    >>> round(float(cka(found[0, 0])), 4), round(float(cka(found[0, 1])), 4)
    (1.0, 0.9897)

  Reference:
    Kornblith et al., "Similarity of Neural Network Representations Revisited",
    2019, arXiv:1905.00414; the unbiased estimate by Song et al., "Feature
    Selection via Dependence Maximization", 2012.
  """
  if moments.yy is None:
    raise ValueError(
      'cka: the moments of y are missing: take them with similarity=True'
    )
  if unbiased and moments.norms is None:
    raise ValueError(
      'cka: moments about the origin have no norms: give those of '
      'cross_moments, or unbiased=False'
    )
  count = moments.count
  if unbiased and not isinstance(count, jax.core.Tracer) and count < 4:
    raise ValueError(
      f'cka: {count} rows, the unbiased estimate needs 4: give more'
    )
  return _cka(
    count,
    (moments.xx, moments.xy, moments.yy),
    moments.norms,
    unbiased=unbiased,
  )


@functools.partial(jax.jit, static_argnames='unbiased')
def _cka(
  count: types.Array,
  covariances: tuple[types.Array, types.Array, types.Array],
  norms: types.Array | None,
  *,
  unbiased: bool,
) -> types.Array:
  """Computes the alignment; ``covariances`` and ``norms`` are xx, xy, yy."""
  hsic = jnp.stack([jnp.sum(jnp.square(c)) for c in covariances])
  if unbiased:
    assert norms is not None
    # HSIC_1 is invariant to translation, so let the features be centred: then
    # K 1 = 0. With a_i = |x_i|^2 and b_i = |y_i|^2, the diagonals of K and L,
    #   tr K~ L~      = tr K L - sum a_i b_i
    #   1' K~ 1       = -sum a_i,   1' L~ 1 = -sum b_i
    #   1' K~ L~ 1    = (-a)' (-b) = sum a_i b_i
    # and, as tr K L = n^2 |C_xy|^2, sum a_i = n tr C_xx, sum b_i = n tr C_yy,
    #   n (n - 3) HSIC_1 / n^2 = |C_xy|^2 - mean(a b) / (n - 2)
    #                            + tr C_xx tr C_yy / ((n - 1) (n - 2)).
    # The factor cancels in the ratio.
    n = count.astype(norms.dtype)
    a, b = jnp.trace(covariances[0]), jnp.trace(covariances[2])
    traces = jnp.stack([a * a, a * b, b * b])
    hsic = hsic - norms / (n - 2) + traces / ((n - 1) * (n - 2))
  return hsic[1] / jnp.sqrt(hsic[0] * hsic[2])
