"""Subspaces of the largest singular values, from Gram matrices."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wsl import types
from wsl.tree import _numerics
from wsl.tree._spectral import gram, newton_schulz, svd


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

  float32 is decomposed by the smaller Gram matrix, with an error of about 1e-7
  whatever the gaps between singular values; float64, and float32 on a TPU, by
  an SVD. The derivative is right for functions that a
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
  # The Gram matrix needs a few products in float64, which TPUs do not have.
  return jax.lax.platform_dependent(
    x,
    tpu=lambda x: _cut(svd.svd(x), x.shape, k),
    default=lambda x: Leading(*gram.parts(x, k)),
  )


def triplets(part: Leading, shape: tuple[int, ...]) -> svd.Svd:
  """Returns the singular triplets of a part of matrices.

  Args:
    part: of ``leading``.
    shape: of the matrices, ``(..., m, n)``.

  Returns:
    u ``[..., m, k]``, s ``[..., k]`` in descending order, 0 where it is a
    rounding error, and vt ``[..., k, n]``.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jnp.diag(jnp.asarray([3.0, 2.0, 1.0]))
    >>> triplets(leading(x, 2), x.shape).s.round(4).tolist()
    [3.0, 2.0]
  """
  # A common rotation of u, v and core is free: that to the eigenvectors of core
  # makes core diagonal, and u and v singular vectors.
  u, core, v = part
  s, turn = jnp.linalg.eigh((core + jnp.matrix_transpose(core)) / 2)
  s, turn = s[..., ::-1], turn[..., ::-1]
  s = s * svd.significant(s, shape, s[..., :1])
  vt = jnp.matrix_transpose(_numerics.matmul(v, turn))
  return svd.Svd(_numerics.matmul(u, turn), s, vt)


def _cut(decomposition: svd.Svd, shape: tuple[int, ...], k: int) -> Leading:
  """Keeps the k leading triplets; zeros where they are rounding errors."""
  u, s, vt = decomposition
  real = svd.significant(s, shape, s[..., :1])[..., :k]
  mask = real[..., None, :]
  s = (s[..., :k] * real)[..., None]
  core = s * newton_schulz.identity(jnp.broadcast_to(s, (*s.shape[:-1], k)))
  v = jnp.matrix_transpose(vt[..., :k, :])
  return Leading(u[..., :k] * mask, core, v * mask)


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
  turn = gram.symmetric(core, s[..., :k])
  core = core + _numerics.matmul(found.core, turn)
  return found, Leading(du, core, dv + _numerics.matmul(found.v, turn))
