"""Canonical correlations from streamed moments."""

import functools

import jax
import jax.numpy as jnp

from wsl import tree, types

_REDUCE = ('mean', 'squared', 'projection')


def cca(
  moments: types.CrossMoments,
  *,
  reduce: str = 'mean',
  keep: float = 1.0,
  components: int | None = None,
  threshold: float = 1.0,
) -> types.Array:
  r"""Computes the mean canonical correlation of two sets of features.

  .. math:: \rho_1 \ge \dots \ge \rho_k: \text{ singular values of }
    C_{xx}^{-1/2} C_{xy} C_{yy}^{-1/2}

  With ``keep`` = 1 it is invariant to invertible affine maps of either set. It
  is 1 for any features if there are as many features as rows, so give several
  times more rows than features.

  ==============  ==========================================================
  ``reduce``      the mean over the k correlations
  ==============  ==========================================================
  ``mean``        of :math:`\rho_i`; with ``keep=0.99`` it is SVCCA
  ``squared``     of :math:`\rho_i^2`
  ``projection``  of :math:`\rho_i` with weights :math:`\sum_j |\langle h_i,
                  x_j \rangle|`, the share of the features x that the
                  canonical variate h_i explains: PWCCA
  ==============  ==========================================================

  Args:
    moments: from ``cross_moments``.
    reduce: the mean of the correlations, see above.
    keep: share of the variance of each set, 0 < keep <= 1. The fewest leading
      principal components that hold it are kept; with 1, all whose variance
      exceeds rounding.
    components: the largest number of principal components of each set, 1 or
      more; by default as many as ``keep`` leaves. k is the smaller number.
    threshold: share of the sum of the correlations, 0 < threshold <= 1: k is
      the smallest number of leading correlations that holds it. The code of
      SVCCA averages with 0.98.

  Returns:
    The mean, ``[]``, 0 .. 1; 0 if either set is constant.

  Raises:
    ValueError: if the moments were taken without ``similarity``, or an
      argument is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stats import cross_moments
    >>> x = jnp.asarray([[0.0, 1.0], [1.0, 3.0], [2.0, 0.0], [5.0, 1.0]])
    >>> mixed = lambda x: [x @ jnp.asarray([[1.0, 2.0], [0.0, 1.0]])]
    >>> found = cross_moments(lambda x: [x], mixed, [x])
    >>> round(float(cca(found[0, 0])), 4)
    1.0

  Reference:
    Raghu et al., "SVCCA: Singular Vector Canonical Correlation Analysis for
    Deep Learning Dynamics and Interpretability", 2017, arXiv:1706.05806;
    Morcos et al., "Insights on representational similarity in neural networks
    with canonical correlation", 2018, arXiv:1806.05759 (``projection``).

  Differs from the official code of PWCCA. It leaves the whitening
  :math:`C_{xx}^{-1/2}` out of the canonical variates, adds the means to them,
  orthonormalises them by a QR decomposition, and multiplies them with features
  that are not centred. It takes the weights from y if y has fewer features.
  """
  tree.check_scalars('cca', keep=keep, threshold=threshold)
  if reduce not in _REDUCE:
    hint = tree.nearest(reduce, list(_REDUCE))
    raise ValueError(
      f"cca(reduce='{reduce}'): no such mean{hint}: there are "
      f'{", ".join(_REDUCE)}'
    )
  if not 0 < keep <= 1:
    raise ValueError(
      f'cca(keep={keep}): a share of the variance, expected 0 < keep <= 1'
    )
  if not 0 < threshold <= 1:
    raise ValueError(
      f'cca(threshold={threshold}): a share of the sum of correlations, '
      'expected 0 < threshold <= 1'
    )
  tree.check_whole('cca', components=components)
  if components is not None and components < 1:
    raise ValueError(f'cca(components={components}): expected 1 or more')
  if moments.yy is None:
    raise ValueError(
      'cca: the moments of y are missing: take them with similarity=True'
    )
  most = max(moments.xy.shape) if components is None else components
  return _cca(
    moments.xx,
    moments.xy,
    moments.yy,
    reduce=reduce,
    keep=keep,
    most=most,
    threshold=threshold,
  )


@functools.partial(jax.jit, static_argnames='reduce')
def _cca(
  xx: types.Array,
  xy: types.Array,
  yy: types.Array,
  *,
  reduce: str,
  keep: types.Scalar,
  most: types.Scalar,
  threshold: types.Scalar,
) -> types.Array:
  """Computes the correlations by whitening both sets, and their mean."""
  # With P_x^T C_xx P_x = I and the same for y, the canonical correlations are
  # the singular values of P_x^T C_xy P_y, and P_x u_i the i-th direction of x.
  x, rank_x = _whitening(xx, keep, most)
  y, rank_y = _whitening(yy, keep, most)
  between = tree.matmul(tree.matmul(x.T, xy), y)
  u, rho, _ = jnp.linalg.svd(between, full_matrices=False)
  rho = jnp.clip(rho, 0, 1)
  kept = jnp.arange(len(rho)) < jnp.minimum(rank_x, rank_y)
  kept &= _leading(jnp.where(kept, rho, 0), threshold)
  weight = kept.astype(rho.dtype)
  if reduce == 'projection':
    # The canonical variates are H = X P_x U of centred features X, and the
    # products X^T H are n C_xx P_x U; n cancels in the weighted mean.
    products = tree.matmul(tree.matmul(xx, x), u)
    weight = weight * jnp.sum(jnp.abs(products), 0)
  rho = jnp.square(rho) if reduce == 'squared' else rho
  total = jnp.sum(weight)
  return jnp.sum(weight * rho) / jnp.where(total > 0, total, 1)


def _whitening(
  covariance: types.Array, keep: types.Scalar, most: types.Scalar
) -> tuple[types.Array, types.Array]:
  """Computes P with columns v_i / sqrt(s_i): P^T C P = I up to the rank.

  Args:
    covariance: C = V S V^T of the features, ``[d, d]``.
    keep: the share of the variance that the kept components hold.
    most: the largest number of components.

  Returns:
    P, ``[d, d]``, the largest component first, and the number of components.
  """
  values, vectors = jnp.linalg.eigh(covariance)
  values, vectors = values[::-1], vectors[:, ::-1]
  values = jnp.maximum(values, 0)
  least = len(values) * jnp.finfo(values.dtype).eps * values[0]
  nonzero = values > least
  kept = nonzero & _leading(values, keep) & (jnp.arange(len(values)) < most)
  rate = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, values, 1)), 0)
  return vectors * rate[None], jnp.sum(kept)


def _leading(values: types.Array, share: types.Scalar) -> types.Array:
  """Returns which of the descending values are needed to hold a share."""
  # A value is needed if the larger ones hold less than the share.
  before = jnp.cumsum(values) - values
  return (before < share * jnp.sum(values)) | (share == 1)
