"""Sinkhorn's projection onto doubly stochastic matrices, differentiable."""

import functools

import jax
import jax.numpy as jnp

from wsl import types


def sinkhorn_project(
  logits: types.Array, *, temperature: types.Scalar, iterations: int
) -> types.Array:
  r"""Scales the rows and columns of :math:`e^{Z/\tau}` to sum to one.

  .. math:: P = \mathrm{diag}(a)\, e^{Z / \tau}\, \mathrm{diag}(b), \qquad
    P 1 = 1, \quad P^\top 1 = 1

  Rows and columns are normalised in turn, in the log domain. The derivative is
  that of the fixed point, whatever the number of iterations: with the cotangent
  :math:`\bar{L}` of :math:`\log P`,

  .. math:: \bar{Z} = \tfrac{1}{\tau} \left(\bar{L} -
    P \circ (\alpha 1^\top + 1 \beta^\top)\right), \qquad
    \begin{pmatrix} \mathrm{diag}(P 1) & P \\
      P^\top & \mathrm{diag}(P^\top 1) \end{pmatrix}
    \begin{pmatrix} \alpha \\ \beta \end{pmatrix} =
    \begin{pmatrix} \bar{L} 1 \\ \bar{L}^\top 1 \end{pmatrix}

  of which :math:`\alpha` is eliminated, which leaves an n by n system.

  Args:
    logits: Z, ``[..., n, n]``, float32 or wider; a larger entry makes a larger
      probability.
    temperature: tau, > 0.
    iterations: how often rows and columns are normalised; they converge slowly
      at a low temperature.

  Returns:
    Doubly stochastic matrices ``[..., n, n]``: columns sum to one exactly, rows
    as far as the iteration has converged.

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
  scaled = logits / jnp.asarray(temperature, logits.dtype)
  return _project(scaled, iterations)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _project(scaled: types.Array, iterations: int) -> types.Array:
  return jnp.exp(jax.lax.fori_loop(0, iterations, _normalise, scaled))


def _normalise(_: types.Array, x: types.Array) -> types.Array:
  # Not a closure: outside of jit the loop is compiled once for a shape.
  for axis in (-1, -2):
    x = x - jax.scipy.special.logsumexp(x, axis=axis, keepdims=True)
  return x


def _forward(
  scaled: types.Array, iterations: int
) -> tuple[types.Array, types.Array]:
  matrix = _project(scaled, iterations)
  return matrix, matrix


def _backward(
  iterations: int, matrix: types.Array, cotangent: types.Array
) -> tuple[types.Array]:
  log_cotangent = matrix * cotangent
  rows, columns = matrix.sum(-1), matrix.sum(-2)
  by_rows, by_columns = log_cotangent.sum(-1), log_cotangent.sum(-2)
  transposed = jnp.swapaxes(matrix, -1, -2) / rows[..., None, :]
  product = lambda x, y: jnp.matmul(x, y, precision='highest')
  # A constant shift between alpha and beta changes nothing: fix it. The
  # damping keeps what rounding leaves of a near permutation positive.
  n = columns.shape[-1]
  damping = 4 * n * float(jnp.finfo(matrix.dtype).eps)
  eye = jnp.broadcast_to(jnp.eye(n, dtype=matrix.dtype), matrix.shape)
  shift = columns[..., None, :] * columns[..., :, None] / n
  schur = (columns[..., None] + damping) * eye + shift
  schur = schur - product(transposed, matrix)
  right = by_columns - product(transposed, by_rows[..., None])[..., 0]
  factor = jnp.linalg.cholesky(schur)
  half = _triangular(factor, right[..., None], False)
  beta = jnp.swapaxes(_triangular(factor, half, True), -1, -2)
  alpha = (by_rows - (matrix * beta).sum(-1)) / rows
  return (log_cotangent - matrix * (alpha[..., None] + beta),)


def _triangular(
  factor: types.Array, right: types.Array, transpose: bool
) -> types.Array:
  return jax.lax.linalg.triangular_solve(
    factor, right, left_side=True, lower=True, transpose_a=transpose
  )


_project.defvjp(_forward, _backward)
