"""Singular value decompositions, by LAPACK or by products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import types
from wsl.tree import _numerics
from wsl.tree._spectral import newton_schulz


class Svd(NamedTuple):
  """Thin singular value decompositions, ``x = u diag(s) vt``."""

  u: types.Array  # [..., m, r]
  s: types.Array  # [..., r], descending
  vt: types.Array  # [..., r, n]


def choose(
  x: types.Array, lapack: Callable[..., Any], products: Callable[..., Any]
) -> Any:
  """Applies the faster of two functions that compute the same from a matrix.

  With LAPACK, on a CPU, an SVD takes the time of 17 products of square
  matrices; a polar factor takes 30 products. On a GPU an SVD takes that of
  thousands. In float64 it is taken there too: its singular values are right
  down to 1e-16 of the largest, and the products would be 70.
  """
  if x.dtype != jnp.float32:
    return lapack(x)
  return jax.lax.platform_dependent(x, cpu=lapack, default=products)


def significant(
  s: types.Array, shape: tuple[int, ...], largest: types.Array
) -> types.Array:
  """Returns 1 for singular values of ``[m, n]`` above rounding error, else 0.

  They exceed ``4 sqrt(max(m, n)) eps`` times the largest.

  Args:
    s: singular values ``[..., r]``.
    shape: of the matrices, ``(..., m, n)``.
    largest: the largest singular values ``[..., 1]``.

  Returns:
    A mask ``[..., r]`` of zeros and ones.

  Example:
    >>> import jax.numpy as jnp
    >>> s = jnp.asarray([2.0, 1e-30])
    >>> significant(s, (3, 2), s[:1]).tolist()
    [1.0, 0.0]
  """
  return (s > tolerance(shape, s.dtype) * largest).astype(s.dtype)


def tolerance(shape: tuple[int, ...], dtype: jnp.dtype) -> float:
  """Returns the ratio to the largest at which singular values count as 0.

  Rounding errors are nearly independent, so that those of n terms add to about
  sqrt(n) eps (Higham and Mary, "A new approach to probabilistic rounding error
  analysis", 2019). For products of deficient rank, n = 64 to 1536, an SVD in
  float32 returns 0.04 to 0.13 sqrt(n) eps for zero. The n eps of
  ``numpy.linalg.matrix_rank`` would discard a direction of every seventh square
  matrix of 768 normal numbers: its least singular value is below n eps with
  probability 2 n^2 eps.
  """
  return 4 * max(shape[-2:]) ** 0.5 * float(jnp.finfo(dtype).eps)


def svd(x: types.Array) -> Svd:
  """Decomposes ``[..., m, n]``, singular values in descending order.

  It is differentiable where the singular values differ. Vectors of singular
  values below ``4 sqrt(max(m, n)) eps`` times the largest may be shorter than
  1.

  Args:
    x: matrices ``[..., m, n]`` in float32 or wider.

  Returns:
    The thin decompositions: u ``[..., m, r]``, s ``[..., r]`` and vt
    ``[..., r, n]``, r = min(m, n).

  Example:
    >>> import jax.numpy as jnp
    >>> svd(jnp.diag(jnp.asarray([1.0, 2.0]))).s.tolist()
    [2.0, 1.0]
  """
  return _svd(x)


@jax.custom_jvp
def _svd(x: types.Array) -> Svd:
  """Decomposes by the faster way; the derivative is that of the definition."""
  return choose(x, lapack, by_products)


@_svd.defjvp
def _svd_slope(
  primals: tuple[types.Array], tangents: tuple[types.Array]
) -> tuple[Svd, Svd]:
  r"""Differentiates a thin SVD, also one computed by loops.

  With :math:`P = U^\top dx\,V` the product rule of :math:`x = U S V^\top` gives
  :math:`ds_i = P_{ii}` and, for i and j different,

  .. math:: (U^\top dU)_{ij} = (P_{ij} s_j + s_i P_{ji}) / (s_j^2 - s_i^2),

  and for V the same with P transposed. Outside the span of U, and of V,
  :math:`dx\,v_i` and :math:`dx^\top u_i` are divided by :math:`s_i`.
  """
  (x,), (dx,) = primals, tangents
  found, t = _svd(x), jnp.matrix_transpose
  u, s, v = found.u, found.s, t(found.vt)
  right, left = _numerics.matmul(dx, v), _numerics.matmul(t(dx), u)
  inner = _numerics.matmul(t(u), right)
  row, column, squares = s[..., None, :], s[..., :, None], jnp.square(s)
  gaps = squares[..., None, :] - squares[..., :, None]
  inverse = lambda y: _numerics.safe_divide(jnp.ones_like(y), y)
  turn_u = inverse(gaps) * (inner * row + column * t(inner))
  turn_v = inverse(gaps) * (t(inner) * row + column * inner)
  one = inverse(row * significant(s, x.shape, s[..., :1])[..., None, :])
  outside_u = (right - _numerics.matmul(u, inner)) * one
  outside_v = (left - _numerics.matmul(v, t(inner))) * one
  du = _numerics.matmul(u, turn_u) + outside_u
  dv = _numerics.matmul(v, turn_v) + outside_v
  ds = jnp.diagonal(inner, axis1=-2, axis2=-1)
  return found, Svd(du, ds, t(dv))


def lapack(x: types.Array) -> Svd:
  """Decomposes ``[..., m, n]`` by the SVD of the platform."""
  return Svd(*jnp.linalg.svd(x, full_matrices=False))


def by_products(x: types.Array) -> Svd:
  """Decomposes ``[..., m, n]`` by products and ``eigh``."""
  if x.shape[-2] < x.shape[-1]:
    u, s, vt = by_products(jnp.matrix_transpose(x))
    return Svd(jnp.matrix_transpose(vt), s, jnp.matrix_transpose(u))
  w, _ = newton_schulz.orthonormalise(x, tolerance(x.shape, x.dtype))
  return of_polar(w, x)


def of_polar(w: types.Array, x: types.Array) -> Svd:
  r"""Decomposes ``[..., m, n]``, m >= n, from its orthonormal factor.

  :math:`H = W^\top x = V S V^\top`, so :math:`x = (W V) S V^\top`. H has the
  singular values themselves, where a Gram matrix has their squares and loses
  those below the root of eps.

  Reference:
    Nakatsukasa and Higham, "Stable and efficient spectral divide and conquer
    algorithms for the symmetric eigenvalue decomposition and the SVD", 2013.
  """
  h = _numerics.matmul(jnp.matrix_transpose(w), x)
  s, v = eigh((h + jnp.matrix_transpose(h)) / 2)
  return Svd(_numerics.matmul(w, v), s, jnp.matrix_transpose(v))


def eigh(x: types.Array) -> tuple[types.Array, types.Array]:
  """Returns eigenvalues, in descending order, and eigenvectors as columns.

  Of the symmetric matrices ``[..., n, n]`` one triangle is read.
  """
  # Libraries expect columns in sequence: the transpose takes no copy.
  s, v = jnp.linalg.eigh(jnp.matrix_transpose(x), symmetrize_input=False)
  return s[..., ::-1], v[..., ::-1]
