"""Leading singular subspaces by randomised subspace iteration."""

import jax
import jax.numpy as jnp

from wsl import tree, types

# Columns beyond the rank, whose directions converge first where singular values
# are close.
_EXTRA = 8


def leading(
  x: types.Array, k: int, words: types.Array, passes: int
) -> tree.Leading:
  r"""Returns about the k leading singular subspaces of ``[..., m, n]``.

  .. math:: V \leftarrow \operatorname{orth}(x^\top \operatorname{orth}(x V))

  from random V, whose directions outside of the leading ones shrink by
  :math:`(s_{k+p+1} / s_k)^2` in each step; then an SVD of the small
  :math:`U^\top x`. It is exact, to rounding, for matrices of rank at most
  k + p.

  Args:
    x: matrices in float32 or wider.
    k: the number of singular values.
    words: two words of a random key.
    passes: the number of steps, each of two products with x.

  Reference:
    Halko, Martinsson and Tropp, "Finding structure with randomness", 2011,
    algorithm 4.4.
  """
  size = min(k + _EXTRA, *x.shape[-2:])
  t = jnp.matrix_transpose
  orth = lambda y: jnp.linalg.qr(y)[0]
  key = jax.random.wrap_key_data(words, impl='threefry2x32')
  start = jax.random.normal(key, (x.shape[-1], size), x.dtype)
  v = jnp.broadcast_to(start, (*x.shape[:-2], *start.shape))
  step = lambda _, v: orth(tree.matmul(t(x), orth(tree.matmul(x, v))))
  u = orth(tree.matmul(x, jax.lax.fori_loop(0, passes, step, v)))
  left, s, right = jnp.linalg.svd(t(tree.matmul(t(x), u)), full_matrices=False)
  one = jnp.broadcast_to(jnp.eye(k, dtype=x.dtype), (*x.shape[:-2], k, k))
  u = tree.matmul(u, left[..., :k])
  return tree.Leading(u, s[..., :k, None] * one, t(right[..., :k, :]))
