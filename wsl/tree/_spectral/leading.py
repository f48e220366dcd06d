"""Subspaces of the largest singular values, from Gram matrices."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wsl import types
from wsl.tree import _numerics
from wsl.tree._spectral import newton_schulz, svd

# Eigenvectors of a Gram matrix are refined where the kept singular values are
# at least this part of the largest.
_SQUARED = 1 / 32


class Leading(NamedTuple):
  """The part of matrices in their leading singular subspaces.

  The part is ``u core v^T``, with core symmetric and PSD, as diag(s) is. A
  rotation of u, v and core together is free: a function of the part must not
  depend on it. Directions of zero singular values have zero columns.
  """

  u: types.Array  # [..., m, k]
  core: types.Array  # [..., k, k]
  v: types.Array  # [..., n, k]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def leading(x: types.Array, k: int) -> Leading:
  r"""Returns the k leading singular subspaces of ``[..., m, n]``.

  .. math:: x \approx U C V^\top, \qquad U^\top U = V^\top V = 1

  float32 is decomposed by products and the smaller Gram matrix, refined to the
  error of an SVD, or by an SVD where the k-th singular value is below 1/32 of
  the first; float64 by an SVD. The derivative is right for functions that a
  common rotation of U, V and C leaves as they are. It exists where the k-th
  singular value differs from the next, also where others coincide.

  Args:
    x: matrices ``[..., m, n]`` in float32 or wider.
    k: the number of singular values, 0 .. min(m, n).

  Returns:
    The part ``u core v^T``; see ``Leading``.

  Example:
    >>> import jax.numpy as jnp
    >>> u, core, v = leading(jnp.diag(jnp.asarray([3.0, 2.0, 1.0])), 1)
    >>> abs(u @ core @ v.T).round(4).tolist()
    [[3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
  """
  if not k:
    zeros = lambda *shape: jnp.zeros((*x.shape[:-2], *shape), x.dtype)
    return Leading(*(zeros(size, 0) for size in (x.shape[-2], 0, x.shape[-1])))
  if x.dtype != jnp.float32:
    return _cut(svd.svd(x), x.shape, k)
  if x.shape[-2] < x.shape[-1]:
    u, core, v = leading(jnp.matrix_transpose(x), k)
    return Leading(v, jnp.matrix_transpose(core), u)
  found, is_sure = by_gram(x, k)
  return jax.lax.cond(
    is_sure, lambda x: found, lambda x: _cut(svd.svd(x), x.shape, k), x
  )


def _cut(decomposition: svd.Svd, shape: tuple[int, ...], k: int) -> Leading:
  """Keeps the k leading triplets; zeros where they are rounding errors."""
  u, s, vt = decomposition
  real = svd.significant(s, shape, s[..., :1])[..., :k]
  mask = real[..., None, :]
  s = (s[..., :k] * real)[..., None]
  core = s * newton_schulz.identity(jnp.broadcast_to(s, (*s.shape[:-1], k)))
  v = jnp.matrix_transpose(vt[..., :k, :])
  return Leading(u[..., :k] * mask, core, v * mask)


def by_gram(x: types.Array, k: int) -> tuple[Leading, types.Array]:
  r"""Returns the k leading subspaces of ``[..., m, n]``, and if they are sure.

  Eigenvectors of :math:`x^\top x` mix directions i and j by about
  eps :math:`s_1^2 / (s_i^2 - s_j^2)`. The columns of :math:`b = x V` have the
  small singular values at their own scale: rotations by

  .. math:: \theta_{ij} = b_i^\top b_j / (|b_i|^2 - |b_j|^2)

  of each kept direction i against each other j, one step of Jacobi's method
  for all pairs at once, leave the error of an SVD, eps :math:`s_1 / (s_i -
  s_j)`. Rotations within the subspace need not be undone.
  """
  t = jnp.matrix_transpose
  size = jnp.max(jnp.abs(x), (-2, -1), keepdims=True)
  x = _numerics.safe_divide(x, size)
  _, v = svd.eigh(_numerics.matmul(t(x), x))
  b = _numerics.matmul(x, v)
  square = jnp.sum(jnp.square(b), -2)
  cross = _numerics.matmul(t(b[..., k:]), b[..., :k])
  gap = square[..., None, :k] - square[..., k:, None]
  # Pairs that coincide to rounding error may be mixed in any way.
  error = float(jnp.finfo(x.dtype).eps) * jnp.sqrt(square[..., None, :1])
  error = error * jnp.sqrt(square[..., None, :k])
  tells = gap > 32 * jnp.maximum(jnp.abs(cross), error)
  angle = jnp.where(tells, _numerics.safe_divide(cross, gap), 0)
  v = _nearly_orthonormal(v[..., :k] + _numerics.matmul(v[..., k:], angle))
  b = _numerics.matmul(x, v)
  s = jnp.sqrt(jnp.sum(jnp.square(b), -2))
  largest = jnp.max(s, -1, keepdims=True)
  real = svd.significant(s, x.shape, largest)
  u = _numerics.safe_divide(b, s[..., None, :]) * real[..., None, :]
  u, v = _nearly_orthonormal(u), v * real[..., None, :]
  core = _numerics.matmul(t(u), b) * real[..., None, :]
  turn = _symmetric(core, s * real)
  v, core = v + _numerics.matmul(v, turn), core + _numerics.matmul(core, turn)
  is_sure = jnp.all((real == 0) | (s > _SQUARED * largest))
  return Leading(u, size * core, v), is_sure


def _symmetric(core: types.Array, s: types.Array) -> types.Array:
  r"""Returns the skew turn that makes a core near diag(s) symmetric.

  To first order :math:`C (I + \Omega)` is symmetric for :math:`\Omega_{ij} =
  (C_{ji} - C_{ij}) / (s_i + s_j)`.
  """
  sums = s[..., None, :] + s[..., :, None]
  return _numerics.safe_divide(jnp.matrix_transpose(core) - core, sums)


def _nearly_orthonormal(x: types.Array) -> types.Array:
  """Restores orthonormal columns to first order in their error."""
  gram = _numerics.matmul(jnp.matrix_transpose(x), x)
  return 1.5 * x - 0.5 * _numerics.matmul(x, gram)


@leading.defjvp
def _leading_slope(
  k: int, primals: tuple[types.Array], tangents: tuple[types.Array]
) -> tuple[Leading, Leading]:
  r"""Differentiates the subspaces, with the derivatives orthogonal to them.

  With :math:`P = U^\top dx\,V` in the basis of all singular vectors, i kept and
  j not, the product rule of :math:`x = U S V^\top` gives

  .. math:: (U^\top dU)_{ji} = (s_i P_{ji} + s_j P_{ij}) / (s_i^2 - s_j^2)

  and for V the same with P transposed. Outside the span of U, and of V,
  :math:`dx\,v_i` and :math:`dx^\top u_i` are divided by :math:`s_i`. V is then
  turned within its subspace, so that core, whose derivative is P, remains
  symmetric.
  """
  (x,), (dx,) = primals, tangents
  if not k:
    found = leading(x, k)
    return found, found
  t = jnp.matrix_transpose
  u, s, vt = svd.svd(x)
  real = svd.significant(s, x.shape, s[..., :1])
  u, s, v = u * real[..., None, :], s * real, t(vt) * real[..., None, :]
  kept = real.at[..., k:].set(0)
  inverse = lambda y: _numerics.safe_divide(jnp.ones_like(y), y)
  # 1 / (s_i^2 - s_j^2) at [j, i], for i kept and j not.
  pairs = (1 - kept)[..., :, None] * kept[..., None, :]
  squares = jnp.square(s)
  pairs = pairs * inverse(squares[..., None, :] - squares[..., :, None])
  right, left = _numerics.matmul(dx, v), _numerics.matmul(t(dx), u)
  inner = _numerics.matmul(t(u), right)
  row, column = s[..., None, :], s[..., :, None]
  turn_u = pairs * (row * inner + column * t(inner))
  turn_v = pairs * (row * t(inner) + column * inner)
  outside_u = (right - _numerics.matmul(u, inner)) * inverse(row)
  outside_v = (left - _numerics.matmul(v, t(inner))) * inverse(row)
  du = (_numerics.matmul(u, turn_u) + outside_u)[..., :k] * kept[..., None, :k]
  dv = (_numerics.matmul(v, turn_v) + outside_v)[..., :k] * kept[..., None, :k]
  found, core = _cut(svd.Svd(u, s, t(v)), x.shape, k), inner[..., :k, :k]
  turn = _symmetric(core, s[..., :k])
  core = core + _numerics.matmul(found.core, turn)
  return found, Leading(du, core, dv + _numerics.matmul(found.v, turn))
