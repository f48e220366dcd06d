"""The solution of least norm of positive semidefinite equations."""

import jax
import jax.numpy as jnp

from wsl import tree, types

# Rounding of correlations moves their eigenvalues by a few d epsilon at most.
ROUNDING = 8


def cutoff(d: int, dtype: jnp.dtype) -> float:
  """Returns the eigenvalue of correlations of d features that counts as 0."""
  return ROUNDING * d * float(jnp.finfo(dtype).eps)


@jax.custom_jvp
def solve(
  a: types.Array, b: types.Array, floor: types.Array
) -> tuple[types.Array, types.Array]:
  r"""Returns :math:`A^+ B`, and 1 if A is singular or else 0.

  If A is regular, by a Cholesky factorisation; otherwise by an eigenvalue
  decomposition, both of A scaled to a unit diagonal.

  Args:
    a: A, ``[d, d]``, symmetric and positive semidefinite.
    b: B, ``[d, m]``.
    floor: ``[d]``, entries of A's diagonal up to these are rounding of 0.

  Returns:
    ``[d, m]``, not finite if A is not; and ``[]`` of the dtype of A.
  """
  # R = D A D = L L^T, with D the inverse roots of the diagonal. L_ii^2 is the
  # fraction of the variance of feature i that the features before it do not
  # explain. The features count as independent if all fractions exceed
  # d epsilon; below that they are rounding.
  d, epsilon = len(a), jnp.finfo(a.dtype).eps
  diagonal = jnp.diagonal(a)
  scale = jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1))
  correlations = scale[:, None] * a * scale[None]
  lower = jnp.linalg.cholesky(correlations)
  unexplained = jnp.square(jnp.diagonal(lower))  # NaN where it failed
  varies = diagonal > floor
  regular = jnp.all(unexplained > d * epsilon) & jnp.all(varies)
  # W = D R^-1 D B, by two triangular solves.
  weight = scale[:, None] * b
  for transpose in (False, True):
    weight = jax.lax.linalg.triangular_solve(
      lower, weight, left_side=True, lower=True, transpose_a=transpose
    )
  weight = scale[:, None] * weight

  # A loop of at most one step, because under vmap a cond computes both sides,
  # but a loop stops at once if all of the batch are regular.
  def step(
    state: tuple[types.Array, types.Array],
  ) -> tuple[types.Array, types.Array]:
    return _singular(correlations, b, scale, varies), jnp.zeros_like(state[1])

  weight, _ = jax.lax.while_loop(
    lambda state: state[1],
    step,
    (weight, ~regular & jnp.all(jnp.isfinite(a))),
  )
  return weight, 1 - regular.astype(a.dtype)


def _singular(
  correlations: types.Array,
  b: types.Array,
  scale: types.Array,
  varies: types.Array,
) -> types.Array:
  """Returns (D^-1 R D^-1)^+ B, from the eigenvectors of singular R."""
  scale = jnp.where(varies, scale, 1)
  both = varies[:, None] & varies[None]
  values, vectors = jnp.linalg.eigh(jnp.where(both, correlations, 0))
  null = values <= cutoff(len(b), b.dtype)
  # One solution is W = D R^+ D B.
  shares = tree.matmul(vectors.T, scale[:, None] * b)
  shares = shares / jnp.where(null, jnp.inf, values)[:, None]
  weight = scale[:, None] * tree.matmul(vectors, shares)
  # The others differ by the null space of A, D times that of R. The shortest
  # is orthogonal to it. Eigenvalues ascend, so the null vectors come first and
  # the first columns of Q are an orthonormal basis of their span.
  basis = jnp.where(null[None], scale[:, None] * vectors, 0)
  q = jnp.where(null[None], jnp.linalg.qr(basis).Q, 0)
  return weight - tree.matmul(q, tree.matmul(q.T, weight))


@solve.defjvp
def _solve_jvp(
  primals: tuple[types.Array, ...], tangents: tuple[types.Array, ...]
) -> tuple[tuple[types.Array, types.Array], tuple[types.Array, types.Array]]:
  """Differentiates A^+ B where the rank of A is constant."""
  # With Z = A^+, dZ = -Z dA Z + Z Z dA (I - A Z) + (I - Z A) dA Z Z (Golub and
  # Pereyra 1973, doi:10.1137/0710036). The last two terms are 0 for regular A.
  a, b, floor = primals
  da, db, _ = tangents
  d = len(a)
  found, singular = solve(
    a, jnp.concatenate([jnp.eye(d, dtype=a.dtype), b], 1), floor
  )
  inverse, weight = found[:, :d], found[:, d:]
  outside = singular * (b - tree.matmul(a, weight))
  change = db - tree.matmul(da, weight)
  change = change + tree.matmul(inverse, tree.matmul(da, outside))
  turned = tree.matmul(da, tree.matmul(inverse, weight))
  turned = turned - tree.matmul(inverse, tree.matmul(a, turned))
  change = tree.matmul(inverse, change) + singular * turned
  return (weight, singular), (change, jnp.zeros_like(singular))
