"""Lanczos tridiagonalisation with full reorthogonalisation, on pytrees."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

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
    rest = project_off(basis, project_off(basis, image, known), known)
    beta = jnp.sqrt(_directions.inner(rest, rest))
    scale = jnp.maximum(scale, jnp.maximum(jnp.abs(alpha), beta))
    exhausted = beta <= eps * scale
    fresh = [b[jnp.minimum(i + 1, steps - 1)] for b in basis]
    fresh = project_off(basis, project_off(basis, fresh, known), known)
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
    x: a direction.
    known: ``[m]``, which rows of V to use; all if None.
  """
  dtype = tree.wide_dtype(*x)
  parts = [
    jnp.tensordot(b, v, v.ndim, precision='highest').astype(dtype)
    for b, v in zip(basis, x)
  ]
  coefficients = sum(parts[1:], parts[0])
  if known is not None:
    coefficients = jnp.where(known, coefficients, jnp.zeros_like(coefficients))
  return [v - combine(b, coefficients) for b, v in zip(basis, x)]


def combine(basis: types.Array, coefficients: types.Array) -> types.Array:
  """Contracts a leaf of a basis ``[m, ...]`` with ``[m]`` or ``[m, k]``."""
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
  to length 1, a direction has the second moments I / n. Normal ones would take
  longer to compile.
  """
  return [
    jax.random.uniform(
      tree.name_key(key, name), (count, *x.shape), x.dtype, minval=-1
    )
    for name, x in zip(names, like)
  ]


def signs(
  key: types.PRNGKey, names: list[str], like: product_lib.Direction
) -> product_lib.Direction:
  """Draws a direction of entries -1 or 1; keys as in ``random``."""
  return [
    jax.random.rademacher(tree.name_key(key, name), x.shape, x.dtype)
    for name, x in zip(names, like)
  ]
