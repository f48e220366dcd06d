"""Polar factors over the nonzero singular values, and their derivative."""

import jax
import jax.numpy as jnp

from wsl import types
from wsl.tree import _numerics
from wsl.tree._spectral import newton_schulz, svd


@jax.custom_jvp
def polar(x: types.Array) -> types.Array:
  r"""Returns the polar factor: the nearest matrix of orthonormal columns.

  .. math:: x = P D Q^\top \mapsto P Q^\top

  over the nonzero singular values, which makes it unique. Its derivative exists
  where x has full rank, also where singular values coincide (as those of
  orthonormal columns do), unlike the derivatives of P and Q; hence the rule
  below.

  Args:
    x: ``[..., m, n]`` in float32 or wider.

  Returns:
    The factors ``[..., m, n]``.

  Example:
    >>> import jax.numpy as jnp
    >>> polar(jnp.diag(jnp.asarray([3.0, 0.5]))).round(4).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
  """
  return svd.choose(x, lambda x: _parts(svd.lapack(x), x)[0], by_products)


def by_products(x: types.Array) -> types.Array:
  """Returns polar factors by products, and by ``eigh`` if one is deficient."""
  if x.shape[-2] < x.shape[-1]:
    return jnp.matrix_transpose(by_products(jnp.matrix_transpose(x)))
  t = jnp.matrix_transpose
  zero = svd.tolerance(x.shape, x.dtype)
  w, bound = newton_schulz.orthonormalise(x, zero)
  # H = W^T x has the singular values as its eigenvalues. Columns of zeros are
  # orthogonal to all others, and stay zero in W: they do not count.
  h = _numerics.matmul(t(w), x)
  empty = jnp.all(x == 0, -2).astype(x.dtype)
  ones = (empty * bound[..., None])[..., None] * newton_schulz.identity(h)
  h = (h + t(h)) / 2 + ones
  margin = 16 * float(jnp.finfo(x.dtype).eps)
  full = newton_schulz.exceeds(h, (zero + margin) * bound)

  def rank_deficient(w: types.Array) -> types.Array:
    _, s, vt = svd.of_polar(w, x)
    real = svd.significant(s, x.shape, s[..., :1])
    w = _numerics.matmul(w, _numerics.matmul(t(vt) * real[..., None, :], vt))
    return w * (1 - empty)[..., None, :]

  return jax.lax.cond(full, lambda w: w, rank_deficient, w)


@polar.defjvp
def _polar_slope(
  primals: tuple[types.Array], tangents: tuple[types.Array]
) -> tuple[types.Array, types.Array]:
  r"""Differentiates :math:`x = W H`, with W orthonormal and H symmetric.

  With :math:`S = P^\top dx\,Q` and :math:`\Omega = P^\top dW\,Q`, the product
  rule :math:`dx = dW\,H + W\,dH` reads :math:`S = \Omega D + Q^\top dH\,Q`.
  dH is symmetric and Omega skew, so :math:`S - S^\top = \Omega D + D \Omega`
  and :math:`\Omega_{ij} = (S - S^\top)_{ij} / (d_i + d_j)`. The parts of dx
  outside the column span of P, or the row span of Q, are divided by D.
  """
  (x,), (dx,) = primals, tangents
  w, p, d, q = _parts(svd.svd(x), x)
  t = jnp.matrix_transpose
  inverse = lambda y: _numerics.safe_divide(jnp.ones_like(y), y)
  right, left = _numerics.matmul(dx, q), _numerics.matmul(t(p), dx)
  inner = _numerics.matmul(left, q)
  turn = (inner - t(inner)) * inverse(d[..., :, None] + d[..., None, :])
  outside = (right - _numerics.matmul(p, inner)) * inverse(d)[..., None, :]
  across = inverse(d)[..., :, None] * (left - _numerics.matmul(inner, t(q)))
  inside = _numerics.matmul(p, _numerics.matmul(turn, t(q)) + across)
  return w, inside + _numerics.matmul(outside, t(q))


def _parts(found: svd.Svd, x: types.Array) -> tuple[types.Array, ...]:
  """Returns W, P, D, Q, with D set to zero below rounding error."""
  u, s, vt = found
  real = svd.significant(s, x.shape, s[..., :1])
  u, v = u * real[..., None, :], jnp.matrix_transpose(vt) * real[..., None, :]
  return _numerics.matmul(u, jnp.matrix_transpose(v)), u, s * real, v
