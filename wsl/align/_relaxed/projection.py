"""Sinkhorn's projection onto doubly stochastic matrices, differentiable."""

import functools

import jax
import jax.numpy as jnp

from wsl import tree, types


def sinkhorn_project(
  logits: types.Array, *, temperature: types.Scalar, iterations: int
) -> types.Array:
  r"""Scales the rows and columns of :math:`e^{Z/\tau}` to sum to one.

  .. math:: P = \mathrm{diag}(a)\, e^{Z / \tau}\, \mathrm{diag}(b), \qquad
    P 1 = 1, \quad P^\top 1 = 1

  Rows and columns are normalised in turn, in the log domain. The derivative is
  that of the fixed point, by the implicit function theorem, for any number of
  iterations. With the cotangent :math:`\bar{L}` of :math:`\log P`,

  .. math:: \bar{Z} = \tfrac{1}{\tau} \left(\bar{L} -
    P \circ (\alpha 1^\top + 1 \beta^\top)\right), \qquad
    \begin{pmatrix} \mathrm{diag}(P 1) & P \\
      P^\top & \mathrm{diag}(P^\top 1) \end{pmatrix}
    \begin{pmatrix} \alpha \\ \beta \end{pmatrix} =
    \begin{pmatrix} \bar{L} 1 \\ \bar{L}^\top 1 \end{pmatrix}

  Elimination of :math:`\alpha` leaves an n by n system for :math:`\beta`.

  Args:
    logits: Z, ``[..., n, n]``, float32 or wider; P increases with the logit.
    temperature: tau, > 0.
    iterations: number of normalisations of rows and columns; convergence is
      slow at a low temperature.

  Returns:
    Doubly stochastic matrices ``[..., n, n]``: columns sum to one exactly, rows
    up to the error of the iteration.

  Example:
    >>> import jax.numpy as jnp
    >>> sinkhorn_project(jnp.eye(2) * 1e3, temperature=1.0,
    ...                  iterations=1).tolist()
    [[1.0, 0.0], [0.0, 1.0]]

  Reference:
    Peña et al., "Re-basin via implicit Sinkhorn differentiation", 2023,
    arXiv:2212.12042; Eisenberger et al., "A Unified Framework for Implicit
    Sinkhorn Differentiation", 2022, arXiv:2205.06688.
  """
  tree.check_scalars('sinkhorn_project', temperature=temperature)
  tree.check_whole('sinkhorn_project', iterations=iterations)
  scaled = logits / jnp.asarray(temperature, logits.dtype)
  return _scale_to_marginals(scaled, iterations)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _scale_to_marginals(scaled: types.Array, iterations: int) -> types.Array:
  """Returns the exponentials, normalised by rows and columns in turn."""
  return jnp.exp(jax.lax.fori_loop(0, iterations, _normalise, scaled))


def _normalise(_: types.Array, x: types.Array) -> types.Array:
  """Normalises rows, then columns, of logarithms."""
  # A module-level function: outside of jit, a closure would compile the loop
  # again at every call.
  for axis in (-1, -2):
    x = x - jax.scipy.special.logsumexp(x, axis=axis, keepdims=True)
  return x


def _forward(
  scaled: types.Array, iterations: int
) -> tuple[types.Array, types.Array]:
  """Returns the projection, which is also the residual of the derivative."""
  matrix = _scale_to_marginals(scaled, iterations)
  return matrix, matrix


def _backward(
  iterations: int, matrix: types.Array, cotangent: types.Array
) -> tuple[types.Array]:
  """Returns the cotangent of the logits, by implicit differentiation."""
  # log P = Z + f 1^T + 1 g^T with P 1 = 1 and P^T 1 = 1. Differentiate the
  # marginals: M (df, dg) = -((P * dZ) 1, (P * dZ)^T 1), with the symmetric
  # M = [[diag(P 1), P], [P^T, diag(P^T 1)]]. The adjoint of dZ -> dlog P is
  # Lbar -> Lbar - P * (a 1^T + 1 b^T), where M (a, b) = (Lbar 1, Lbar^T 1).
  # Substitute a = diag(P 1)^-1 (Lbar 1 - P b) into the second block row:
  # (diag(P^T 1) - P^T diag(P 1)^-1 P) b = Lbar^T 1 - P^T diag(P 1)^-1 Lbar 1.
  log_cotangent = matrix * cotangent
  rows, columns = matrix.sum(-1), matrix.sum(-2)
  by_rows, by_columns = log_cotangent.sum(-1), log_cotangent.sum(-2)
  transposed = jnp.swapaxes(matrix, -1, -2) / rows[..., None, :]
  # M is singular: (a, b) = (1, -1) does not change the result. A rank-one term
  # along it makes the Schur complement regular, and the right-hand side is
  # orthogonal to it, so the solution is the same. The damping keeps the system
  # positive definite under rounding errors if P is close to a permutation.
  n = columns.shape[-1]
  damping = 4 * n * float(jnp.finfo(matrix.dtype).eps)
  eye = jnp.broadcast_to(jnp.eye(n, dtype=matrix.dtype), matrix.shape)
  shift = columns[..., None, :] * columns[..., :, None] / n
  schur = (columns[..., None] + damping) * eye + shift
  schur = schur - tree.matmul(transposed, matrix)
  right = by_columns - tree.matmul(transposed, by_rows[..., None])[..., 0]
  factor = jnp.linalg.cholesky(schur)
  half = _triangular(factor, right[..., None], False)
  beta = jnp.swapaxes(_triangular(factor, half, True), -1, -2)
  alpha = (by_rows - (matrix * beta).sum(-1)) / rows
  return (log_cotangent - matrix * (alpha[..., None] + beta),)


def _triangular(
  factor: types.Array, right: types.Array, transpose: bool
) -> types.Array:
  """Solves with a lower triangular factor, or with its transpose."""
  return jax.lax.linalg.triangular_solve(
    factor, right, left_side=True, lower=True, transpose_a=transpose
  )


_scale_to_marginals.defvjp(_forward, _backward)
