"""Orthogonal matrices as functions of free parameters, to learn them.

Skew matrices ``S = A - A^T`` are the tangent space of the rotations at the
identity. Both ``exp(S)`` and the Cayley map ``(I + S)^-1 (I - S)`` are
orthogonal, because the factors are functions of one matrix and commute:
``Q^T = exp(-S) = Q^-1`` and ``Q^T = (I + S) (I - S)^-1 = Q^-1``. The polar
factor of A is orthogonal for any regular A.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from wsl import tree, types


def orthogonal(free: types.Array, *, kind: str = 'cayley') -> types.Array:
  r"""Maps any square matrix to an orthogonal one, to learn that by descent.

  .. math:: S = A - A^\top, \quad Q = (I + S)^{-1} (I - S)
    \quad \text{or} \quad Q = e^S; \qquad
    Q = A (A^\top A)^{-1/2}

  The first two have determinant 1 and give the identity for A = 0, with
  derivatives -2 S and S there. The exponential reaches every rotation. The
  Cayley map reaches all but those that turn some plane by 180 degrees, at the
  cost of one solve. The polar factor of A is the orthogonal matrix nearest to
  it: A itself if it is orthogonal, a reflection if its determinant is negative.

  Args:
    free: A, ``[d, d]``, any floats. ``'cayley'`` and ``'exponential'`` use only
      ``A - A^T``; for ``'polar'`` A is regular.
    kind: ``'cayley'``, ``'exponential'`` or ``'polar'``.

  Returns:
    Q, ``[d, d]``, float32 or wider.

  Raises:
    ValueError: if the matrix is not square or the kind is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> quarter = jnp.asarray([[0.0, jnp.pi / 2], [0.0, 0.0]])
    >>> orthogonal(quarter, kind='exponential').round(6).tolist()
    [[0.0, 1.0], [-1.0, 0.0]]
    >>> orthogonal(jnp.asarray([[0.0, 1.0], [0.0, 0.0]])).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    >>> flip = jnp.asarray([[0.0, 2.0], [2.0, 0.0]])
    >>> orthogonal(flip, kind='polar').round(6).tolist()
    [[0.0, 1.0], [1.0, 0.0]]

  Reference:
    Cayley, "Sur quelques propriétés des déterminants gauches", 1846;
    Lezcano-Casado & Martínez-Rubio, "Cheap Orthogonal Constraints in Neural
    Networks", 2019, arXiv:1901.08428 (the exponential).
  """
  check_kind('orthogonal', kind)
  shape = jnp.shape(free)
  if len(shape) != 2 or shape[0] != shape[1]:
    raise ValueError(f'orthogonal: {list(shape)} is not square: give [d, d]')
  (wide,) = tree.widen(free)
  return _MAPS[kind](wide)


def check_kind(function: str, kind: str) -> None:
  """Checks the name of a map to orthogonal matrices.

  Raises:
    ValueError: naming the kinds.
  """
  if not isinstance(kind, str) or kind not in _MAPS:
    raise ValueError(
      f"{function}: no kind '{kind}'{tree.nearest(kind, list(_MAPS))}: there "
      f'are {", ".join(_MAPS)}'
    )


def _cayley(free: types.Array) -> types.Array:
  """Returns (I + S)^-1 (I - S) = I - 2 S + O(S^2)."""
  skew = free - free.T
  # A skew S has imaginary eigenvalues i t, so I + S is always invertible.
  # (1 - i t) / (1 + i t) = exp(-2 i arctan t): an angle of pi needs t = inf.
  identity = jnp.eye(len(skew), dtype=skew.dtype)
  return jnp.linalg.solve(identity + skew, identity - skew)


def _exponential(free: types.Array) -> types.Array:
  """Returns exp(S) = I + S + O(S^2); jax.scipy is imported on use."""
  import jax.scipy.linalg

  found: types.Array = jax.scipy.linalg.expm(free - free.T)
  return found


@jax.custom_jvp
def _polar(free: types.Array) -> types.Array:
  """Returns the polar factor U V^T of U S V^T."""
  u, _, vt = jnp.linalg.svd(free)
  return tree.matmul(u, vt)


@_polar.defjvp
def _polar_jvp(
  primals: tuple[types.Array], tangents: tuple[types.Array]
) -> tuple[types.Array, types.Array]:
  """Differentiates the polar factor, also where singular values are equal."""
  # A = Q H with Q^T dQ = W skew and H symmetric: Q^T dA = W H + dH, whose skew
  # part is W H + H W = Q^T dA - dA^T Q. With H = V S V^T, U = Q V and
  # E = U^T dA V, (V^T W V)_ij (s_j + s_i) = E_ij - E_ji, and dQ = Q W.
  u, s, vt = jnp.linalg.svd(primals[0])
  e = tree.matmul(tree.matmul(u.T, tangents[0]), vt.T)
  turn = (e - e.T) / (s[:, None] + s[None])
  return tree.matmul(u, vt), tree.matmul(tree.matmul(u, turn), vt)


_MAPS: Mapping[str, Callable[[types.Array], types.Array]] = MappingProxyType(
  {'cayley': _cayley, 'exponential': _exponential, 'polar': _polar}
)
