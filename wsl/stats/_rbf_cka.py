"""Kernel alignment of two sets of features with Gaussian kernels."""

import functools
import math

import jax
import jax.numpy as jnp

from wsl import tree, types


def rbf_cka(
  x: types.ArrayLike,
  y: types.ArrayLike,
  *,
  width: float = 1.0,
  unbiased: bool = True,
) -> types.Array:
  r"""Computes the centred kernel alignment with Gaussian (RBF) kernels.

  .. math:: K_{ij} = \exp\Big(-\frac{|x_i - x_j|^2}{2 \sigma^2}\Big), \quad
    \sigma^2 = \text{width}^2 \operatorname{median}_{x_i \ne x_j} |x_i - x_j|^2

  and L likewise of y; see ``cka`` for the alignment of K and L. The kernel
  matrices need all rows at once: it cannot be streamed, and takes n^2 memory.

  Args:
    x: features of n examples, ``[n, ...]``; all axes but the first are one.
    y: features of the same examples, ``[n, ...]``.
    width: of the kernels, > 0, in units of the median distance. Kornblith et
      al. report 0.2, 0.4 and 0.8; a large width tends to the linear measure.
    unbiased: whether to correct the bias; the value may then be below 0.

  Returns:
    The alignment, ``[]``: 1 for equal features, about 0 for independent ones;
    NaN if all rows of either set are equal.

  Raises:
    ValueError: if the numbers of rows differ, there are fewer than 4 for the
      unbiased estimate or 2 for the biased one, or the width is not positive.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jnp.asarray([[0.0, 1.0], [1.0, 3.0], [2.0, 0.0], [5.0, 1.0]])
    >>> print(f'{rbf_cka(x, 2 * x + 1):.4f} {rbf_cka(x, x[:, :1]):.4f}')
    1.0000 0.7997

  Reference:
    Kornblith et al., "Similarity of Neural Network Representations Revisited",
    2019, arXiv:1905.00414.

  Differs from the official code in the median, which there includes the n zero
  distances of the diagonal.
  """
  x, y = (a.reshape(len(a), -1) for a in tree.widen(x, y))
  least = 4 if unbiased else 2
  if len(x) != len(y) or len(x) < least:
    raise ValueError(
      f'rbf_cka: {len(x)} and {len(y)} rows: expected the same {least} or more '
      'examples'
    )
  tree.check_scalars('rbf_cka', width=width)
  if not isinstance(width, jax.core.Tracer) and not 0 < width < math.inf:
    raise ValueError(f'rbf_cka(width={width}): expected width > 0')
  return _rbf_cka(x, y, width, unbiased=unbiased)


@functools.partial(jax.jit, static_argnames='unbiased')
def _rbf_cka(
  x: types.Array, y: types.Array, width: types.Scalar, *, unbiased: bool
) -> types.Array:
  """Computes the alignment of the kernel matrices."""
  k, other = _kernel(x, width), _kernel(y, width)
  hsic = _hsic_1 if unbiased else _hsic
  return hsic(k, other) / jnp.sqrt(hsic(k, k) * hsic(other, other))


def _kernel(x: types.Array, width: types.Scalar) -> types.Array:
  """Returns exp(-|x_i - x_j|^2 / (2 sigma^2)) - 1, ``[n, n]``."""
  # Both estimates are invariant to a constant added to the kernel, and without
  # the 1 a kernel of a large width loses no digits.
  # Centred rows lose less in |x_i|^2 + |x_j|^2 - 2 <x_i, x_j>.
  x = x - jnp.mean(x, 0)[None]
  square = jnp.sum(jnp.square(x), 1)
  distance = square[:, None] + square[None] - 2 * tree.matmul(x, x.T)
  # Distances within the rounding of this difference are 0.
  rounding = 8 * jnp.finfo(x.dtype).eps * (square[:, None] + square[None])
  distance = jnp.where(distance > rounding, distance, 0)
  positive = jnp.where(distance > 0, distance, jnp.nan)
  median = jnp.nanmedian(positive)
  return jnp.expm1(-distance / (2 * jnp.square(width) * median))


def _hsic(k: types.Array, other: types.Array) -> types.Array:
  """Returns the biased estimate, tr(H K H L) up to a factor."""
  # tr(H K H L) = <H K H, H L H>, as H^2 = H.
  return jnp.sum(_centred(k) * _centred(other))


def _centred(k: types.Array) -> types.Array:
  """Returns H K H, of rows and columns of sum 0."""
  k = k - jnp.mean(k, 0)[None]
  return k - jnp.mean(k, 1)[:, None]


def _hsic_1(k: types.Array, other: types.Array) -> types.Array:
  r"""Returns the unbiased estimate of Song et al., up to a factor."""
  # Their estimate is, up to a factor,
  #   tr(K L) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K L 1,
  # K and L with a diagonal of 0: a small difference of large sums. It equals
  # the inner product of the U-centred matrices (Szekely and Rizzo 2014,
  # doi:10.1214/14-AOS1255, definition 2), in which nothing cancels.
  return jnp.sum(_u_centred(k) * _u_centred(other))


def _u_centred(k: types.Array) -> types.Array:
  """Returns K with a diagonal of 0, and rows and columns of sum 0."""
  # k_ij - r_i / (n - 2) - r_j / (n - 2) + s / ((n - 1)(n - 2)), with the sums
  # r_i of rows and s of all entries off the diagonal. Their mean is subtracted
  # first: the sums of the rest are small, and so is their rounding.
  n = len(k)
  off_diagonal = 1 - jnp.eye(n, dtype=k.dtype)
  mean = jnp.sum(k * off_diagonal) / (n * (n - 1))
  k = (k - mean) * off_diagonal
  rows = jnp.sum(k, 1) / (n - 2)
  k = k - rows[:, None] - rows[None] + jnp.sum(rows) / (n - 1)
  return k * off_diagonal
