r"""Best orthogonal maps: Procrustes problems, in float64 on the host.

.. math:: \arg\max_R \langle S, R \rangle

over the orthogonal maps R, those that fix the vector of ones, or rotations of
a plane. As a solver of assignments, each takes gains ``[..., n, n]``; the
result is a matrix, not indices.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

_RANK = 1e-12  # relative size of the singular values that count as zero


def rotation(gains: np.ndarray) -> np.ndarray:
  r"""Returns the orthogonal maps with the largest inner product.

  With the singular value decomposition :math:`S = U \Sigma V^\top`, it is
  :math:`R = U V^\top`. Where S is zero the nearest map to the identity is
  taken. For n = 1 it is the sign of S.

  Args:
    gains: ``[..., n, n]``; entry (i, j) is the gain of unit j of the moving
      model in unit i of the fixed one.

  Returns:
    float64 ``[..., n, n]``.

  Reference: Schönemann, "A generalized solution of the orthogonal Procrustes
    problem", 1966, Psychometrika 31.
  """
  gains = np.asarray(gains, np.float64)
  if gains.shape[-1] == 1:
    return np.where(gains < 0, -1.0, 1.0)
  u, s, vt = np.linalg.svd(gains)
  found = u @ vt
  null = s <= _RANK * s[..., :1]
  for index in map(tuple, np.argwhere(null.any(-1))):
    # On the null spaces every orthogonal map from one to the other has gain
    # zero. U_0 W V_0^T with W the polar factor of U_0^T V_0 is nearest to the
    # identity.
    left, right = u[index][:, null[index]], vt[index][null[index]].T
    a, _, b = np.linalg.svd(left.T @ right)
    found[index] += left @ (a @ b) @ right.T - left @ right.T
  return found


def rotation_fixing_ones(gains: np.ndarray) -> np.ndarray:
  """Returns the best orthogonal maps among those that fix the vector of ones.

  With Q an orthonormal basis of the complement of ones, these are
  Q R Q^T + 1 1^T / n, and the gains of R are Q^T S Q.
  """
  n = gains.shape[-1]
  basis = complement(n)
  inner = rotation(basis.T @ np.asarray(gains, np.float64) @ basis)
  return basis @ inner @ basis.T + 1 / n


def complement(n: int) -> np.ndarray:
  """Returns an orthonormal basis ``[n, n - 1]`` of the complement of ones."""
  # The reflection that maps the first unit vector to ones / sqrt(n) maps the
  # others to a basis of the complement.
  if n == 1:
    return np.zeros((1, 0))
  v = np.eye(n)[0] - n**-0.5
  return (np.eye(n) - 2 * np.outer(v, v) / (v @ v))[:, 1:]


def signed_permutation(
  assign: Callable[[Any], Any], gains: np.ndarray
) -> np.ndarray:
  """Returns the best signed permutations, as matrices.

  A pair of units has the gain abs(S_ij), with the sign of S_ij.

  Args:
    assign: an assignment solver.
    gains: ``[..., n, n]``.
  """
  gains = np.asarray(gains, np.float64)
  order = np.asarray(assign(np.abs(gains)))
  one = np.eye(gains.shape[-1])[order]
  return np.where(gains < 0, -one, one)


def phase(gains: np.ndarray) -> np.ndarray:
  """Returns the best rotations of a plane.

  The gain of the rotation by an angle is Re(conj(z) s) with z its unit complex
  number and s = (S_00 + S_11) + i (S_10 - S_01): so z = s / |s|.
  """
  gains = np.asarray(gains, np.float64)
  real = gains[..., 0, 0] + gains[..., 1, 1]
  imaginary = gains[..., 1, 0] - gains[..., 0, 1]
  size = np.hypot(real, imaginary)
  zero = size == 0
  size = np.where(zero, 1, size)
  return plane(np.where(zero, 1, real / size), imaginary / size)


def plane(real: np.ndarray, imaginary: np.ndarray) -> np.ndarray:
  """Returns the products by complex numbers as matrices ``[..., 2, 2]``."""
  rows = (real, -imaginary), (imaginary, real)
  return np.stack([np.stack(row, -1) for row in rows], -2)
