"""Orthogonal matrices as functions of free parameters."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax.numpy as jnp

from wsl import tree, types


def orthogonal(free: types.Array, *, kind: str = 'cayley') -> types.Array:
  r"""Makes an orthogonal matrix of any square matrix, to be learnt by gradient.

  .. math:: S = A - A^\top, \quad Q = (I + S)^{-1} (I - S)
    \quad \text{or} \quad Q = e^S

  Both are rotations (determinant 1) and give the identity for A = 0, where they
  have the derivatives -2 S and S. The exponential reaches every rotation; the
  Cayley map all but those that turn some plane by 180 degrees, at the cost of
  one solve.

  Args:
    free: ``[d, d]``, any floats; only ``A - A^T`` counts.
    kind: ``'cayley'`` or ``'exponential'``.

  Returns:
    ``[d, d]``, float32 or wider.

  Raises:
    ValueError: if the matrix is not square or the kind is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> quarter = jnp.asarray([[0.0, jnp.pi / 2], [0.0, 0.0]])
    >>> orthogonal(quarter, kind='exponential').round(6).tolist()
    [[0.0, 1.0], [-1.0, 0.0]]
    >>> orthogonal(jnp.asarray([[0.0, 1.0], [0.0, 0.0]])).tolist()
    [[0.0, -1.0], [1.0, 0.0]]

  Reference:
    Cayley, "Sur quelques propriétés des déterminants gauches", 1846;
    Lezcano-Casado & Martínez-Rubio, "Cheap Orthogonal Constraints in Neural
    Networks", 2019, arXiv:1901.08428 (the exponential).
  """
  if kind not in _MAPS:
    hint = tree.nearest(kind, list(_MAPS))
    raise ValueError(
      f"orthogonal: no kind '{kind}'{hint}: there are {', '.join(_MAPS)}"
    )
  shape = jnp.shape(free)
  if len(shape) != 2 or shape[0] != shape[1]:
    raise ValueError(f'orthogonal: {list(shape)} is not square: give [d, d]')
  (wide,) = tree.widen(free)
  return _MAPS[kind](wide - wide.T)


def _cayley(skew: types.Array) -> types.Array:
  identity = jnp.eye(len(skew), dtype=skew.dtype)
  return jnp.linalg.solve(identity + skew, identity - skew)


def _exponential(skew: types.Array) -> types.Array:
  import jax.scipy.linalg

  found: types.Array = jax.scipy.linalg.expm(skew)
  return found


_MAPS: Mapping[str, Callable[[types.Array], types.Array]] = MappingProxyType(
  {'cayley': _cayley, 'exponential': _exponential}
)
