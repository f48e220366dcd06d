"""Lanczos tridiagonalisation with full reorthogonalisation, on pytrees."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.landscape import _directions
from wsl.landscape._hessian import product as product_lib

# The basis, the next vector, and the largest entry of T so far.
_Carry: TypeAlias = tuple[
  product_lib.Direction, product_lib.Direction, types.Array
]


class Krylov(NamedTuple):
  r"""An orthonormal basis in which the Hessian is tridiagonal.

  :math:`V^\top H V = T`, with the diagonal ``alphas`` and ``betas[:-1]`` beside
  it; :math:`H V = V T + \beta_m v_{m+1} e_m^\top`.

  Attributes:
    alphas: ``[m]``.
    betas: ``[m]``; the last one is the norm of the residual.
    basis: V, a direction with leaves ``[m, ...]``.
  """

  alphas: types.Array
  betas: types.Array
  basis: product_lib.Direction


def krylov(
  apply: product_lib.Product,
  drawn: product_lib.Direction,
  chosen: product_lib.Chosen,
) -> Krylov:
  """Runs Lanczos from the first of m random directions.

  Where the Krylov space is exhausted (a start in an invariant subspace,
  repeated eigenvalues), it continues from the next direction, made orthogonal
  to the basis, so that T becomes block diagonal and keeps the multiplicities.

  Args:
    apply: the product with H.
    drawn: random directions, leaves ``[m, ...]``; m is the number of steps, at
      most that of parameters.
    chosen: the leaves; the basis is sharded as they are.

  Returns:
    A ``Krylov``.
  """
  dtype = tree.wide_dtype(*drawn)
  eps, steps = jnp.finfo(dtype).eps, drawn[0].shape[0]

  def step(carry: _Carry, i: types.Array) -> tuple[_Carry, Any]:
    # Rows up to i are the basis, the others are random directions.
    basis, vector, scale = carry
    basis = product_lib.keep(
      [b.at[i].set(v) for b, v in zip(basis, vector)], chosen
    )
    known = jnp.arange(steps) <= i
    image = apply(vector)
    alpha = _directions.inner(vector, image)
    # The three-term recurrence subtracts alpha v_i + beta v_{i-1}. The
    # projection off all rows contains both. One projection leaves rounding
    # errors of the cancelled length, two do not.
    fresh = [b[jnp.minimum(i + 1, steps - 1)] for b in basis]
    both = [jnp.stack(pair) for pair in zip(image, fresh)]
    both = project_off(basis, project_off(basis, both, known), known)
    rest, fresh = [x[0] for x in both], [x[1] for x in both]
    beta = jnp.sqrt(_directions.inner(rest, rest))
    scale = jnp.maximum(scale, jnp.maximum(jnp.abs(alpha), beta))
    exhausted = beta <= eps * scale
    ahead = [jnp.where(exhausted, f, r) for f, r in zip(fresh, rest)]
    beta = jnp.where(exhausted, jnp.zeros_like(beta), beta)
    return (basis, _directions.unit(ahead), scale), (alpha, beta)

  drawn = product_lib.keep(drawn, chosen)
  start = _directions.unit([x[0] for x in drawn])
  (basis, _, _), (alphas, betas) = jax.lax.scan(
    step, (drawn, start, jnp.zeros((), dtype)), jnp.arange(steps)
  )
  return Krylov(alphas, betas, basis)


def ritz(found: Krylov) -> tuple[types.Array, types.Array]:
  """Returns eigenvalues of T in ascending order, ``[m]``, and vectors."""
  t = jnp.diag(found.alphas)
  if len(found.alphas) > 1:
    beside = jnp.diag(found.betas[:-1], 1)
    t = t + beside + beside.T
  values, vectors = jnp.linalg.eigh(t, symmetrize_input=False)
  return values, vectors


def project_off(
  basis: product_lib.Direction,
  x: product_lib.Direction,
  known: types.Array | None = None,
) -> product_lib.Direction:
  """Returns ``x - V V' x``; contractions in the shape of each leaf.

  Args:
    basis: V, leaves ``[m, ...]``.
    x: K directions, leaves ``[K, ...]``.
    known: ``[m]``, which rows of V to use; all if None.
  """
  dtype = tree.wide_dtype(*x)
  coefficients = _directions.total(
    [_products(b, v).astype(dtype) for b, v in zip(basis, x)]
  )
  if known is not None:
    coefficients = coefficients * known[:, None].astype(dtype)
  return [v - combine(b, coefficients) for b, v in zip(basis, x)]


def _products(x: types.Array, y: types.Array) -> types.Array:
  """Contracts all axes but the first, ``[m, ...], [K, ...] -> [m, K]``."""
  axes = list(range(1, x.ndim))
  return jnp.tensordot(x, y, (axes, axes), precision='highest')


def combine(basis: types.Array, coefficients: types.Array) -> types.Array:
  """Contracts a leaf of a basis ``[m, ...]`` with ``[m, K]``."""
  found = jnp.tensordot(
    coefficients.astype(basis.dtype).T, basis, 1, precision='highest'
  )
  return found


def random(
  key: types.PRNGKey,
  names: list[str],
  like: product_lib.Direction,
  count: int,
) -> product_lib.Direction:
  """Draws ``count`` directions; entries of a leaf depend on its name and key.

  Entries are uniform in -1 .. 1. Independent symmetric entries suffice: scaled
  to length 1, a direction has the second moments I / n. A hash of their index
  compiles thirty times faster than ``jax.random`` for each leaf.
  """

  def uniform(bits: types.Array, dtype: Any) -> types.Array:
    return (bits.astype(dtype) + 0.5) * 2.0**-31 - 1

  return [
    uniform(bits, x.dtype)
    for x, bits in zip(like, _bits(key, names, like, (count,)))
  ]


def signs(
  key: types.PRNGKey, names: list[str], like: product_lib.Direction
) -> product_lib.Direction:
  """Draws a direction of entries -1 or 1; keys as in ``random``."""
  return [
    1 - 2 * (bits >> np.uint32(31)).astype(x.dtype)
    for x, bits in zip(like, _bits(key, names, like, ()))
  ]


def _bits(
  key: types.PRNGKey,
  names: list[str],
  like: product_lib.Direction,
  lead: tuple[int, ...],
) -> list[types.Array]:
  """Returns random words of 32 bits, ``[*lead, ...]`` for each leaf."""
  words = tree.name_words(key, names, 1)
  return [
    tree.random_bits(words[name][0], (*lead, *x.shape))
    for name, x in zip(names, like)
  ]
