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

  It does not change when features are rotated, shifted or scaled as a whole.
  The biased estimate has
  :math:`\operatorname{HSIC} = \|C_{xy}\|^2` and goes to 1 for any features, as
  their number outgrows the rows; the unbiased one is

  .. math:: \operatorname{HSIC}_1 = \frac{1}{n (n - 3)} \Big(
    \operatorname{tr} \tilde K \tilde L + \frac{1^\top \tilde K 1 \,
    1^\top \tilde L 1}{(n - 1)(n - 2)} - \frac{2}{n - 2}
    1^\top \tilde K \tilde L 1 \Big)

  with zeros on the diagonals of :math:`\tilde K` and :math:`\tilde L`. Since
  it does not change with a shift either, :math:`\tilde K` may be that of
  centred features, whose rows of K sum to zero, so that it needs
  :math:`C_{xy}` and the mean of :math:`|\tilde x|^2 |\tilde y|^2` alone: no
  matrix of rows by rows.

  Args:
    moments: from ``cross_moments``.
    unbiased: whether to correct the bias; the value may then be below 0.

  Returns:
    The alignment, ``[]``: 1 for equal features, about 0 for independent ones;
    NaN if either set of features is constant.

  Raises:
    ValueError: if the moments were taken without ``similarity``, or unbiased
      is to be computed from fewer than 4 rows.

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
  if moments.yy is None or moments.norms is None:
    raise ValueError(
      'cka: the moments lack those of y: take them with similarity=True'
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
  norms: types.Array,
  *,
  unbiased: bool,
) -> types.Array:
  hsic = jnp.stack([jnp.sum(jnp.square(c)) for c in covariances])
  if unbiased:
    n = count.astype(norms.dtype)
    a, b = jnp.trace(covariances[0]), jnp.trace(covariances[2])
    traces = jnp.stack([a * a, a * b, b * b])
    hsic = hsic - norms / (n - 2) + traces / ((n - 1) * (n - 2))
  return hsic[1] / jnp.sqrt(hsic[0] * hsic[2])
