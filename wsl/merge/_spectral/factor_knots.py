r"""KnOTS of low-rank task vectors, without their products.

With :math:`\tau_t = s_t A_t^\top B_t^\top`, whose rows are inputs, and
:math:`A_t^\top = Q_t R_t`, the joined rows of all tasks are

.. math:: \begin{bmatrix} \tau_1 \\ \vdots \\ \tau_T \end{bmatrix} =
  \begin{bmatrix} Q_1 & & \\ & \ddots & \\ & & Q_T \end{bmatrix}
  \begin{bmatrix} s_1 R_1 B_1^\top \\ \vdots \\ s_T R_T B_T^\top
  \end{bmatrix}

The left factor has orthonormal columns, so that the right one, of T r rows, has
the same singular values and right singular vectors.
"""

import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _stack


def basis(
  a: types.Array, b: types.Array, scale: types.Array, *, rank: int | None
) -> types.Array:
  """Returns right singular vectors of the joined rows, ``[G, out, k]``."""
  p, q = _wide(a, b, scale)
  r = jnp.linalg.qr(jnp.matrix_transpose(p), mode='r')  # [T, G, r, r]
  rows = tree.matmul(r, jnp.matrix_transpose(q))  # [T, G, r, out]
  rows = jnp.moveaxis(rows, 0, 1)
  rows = rows.reshape(len(rows), -1, rows.shape[-1])
  _, s, vt = tree.svd(rows)
  joined = (p.shape[0] * p.shape[-1], q.shape[-2])
  # Directions of zero singular values are arbitrary, and have no coordinates.
  real = tree.significant(s, joined, s[..., :1])
  return jnp.matrix_transpose(vt * real[..., None])[..., :rank]


def coordinates(
  a: types.Array, b: types.Array, scale: types.Array, basis: types.Array
) -> types.Array:
  """Returns the coordinates of each task, ``[T, G, in, k]``."""
  p, q = _wide(a, b, scale)
  inner = tree.matmul(jnp.matrix_transpose(q), basis[None])
  return tree.matmul(jnp.matrix_transpose(p), inner)


def restored(
  merged: types.Array, basis: types.Array, like: deltas_lib.Factors
) -> deltas_lib.Factors:
  """Returns factors of merged coordinates ``[G, in, k]``, with scale 1."""
  single = {'single': tree.Static(like.a.ndim == 3)}
  dtype = {'dtype': tree.Static(like.a.dtype)}
  a = tree.apply_kernel(_transposed, merged, **single, **dtype)
  b = tree.apply_kernel(_cast, basis, **single, **dtype)
  return deltas_lib.Factors(a, b, 1.0, like.shape, like.view)


def _wide(
  a: types.Array, b: types.Array, scale: types.Array
) -> tuple[types.Array, types.Array]:
  """Returns A ``[T, G, r, in]`` and the scaled B ``[T, G, out, r]``."""
  dtype = tree.wide_dtype(a, b)
  p, q = (x.astype(dtype) for x in (a, b))
  p, q = (x[:, None] if x.ndim == 3 else x for x in (p, q))
  return p, q * _stack.expand_rank(scale.astype(dtype), q)


def _transposed(
  x: types.Array, *, single: bool, dtype: jnp.dtype
) -> types.Array:
  """Returns A of merged coordinates ``[G, in, k]``."""
  return _cast(jnp.matrix_transpose(x), single=single, dtype=dtype)


def _cast(x: types.Array, *, single: bool, dtype: jnp.dtype) -> types.Array:
  """Casts ``[G, m, n]``; the only matrix of a leaf has no axis of matrices."""
  return (x[0] if single else x).astype(dtype)
