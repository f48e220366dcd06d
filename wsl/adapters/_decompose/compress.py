"""Factors of least rank of a task vector in factors, without its product."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas, tree, types
from wsl.adapters import _checks
from wsl.adapters._decompose import budget, extract


def compress(
  delta: types.Delta,
  *,
  rank: int | None = None,
  energy: float | None = None,
  parameters: int | None = None,
  dtype: Any = None,
) -> extract.Extraction:
  r"""Finds factors of least or given rank of a task vector in factors.

  .. math:: s B A = Q_B \, (s R_B R_A^\top) \, Q_A^\top
    = (Q_B U) S (Q_A V)^\top, \qquad
    B = Q_B R_B, \quad A^\top = Q_A R_A

  by QR decompositions of the factors and an SVD of the small
  :math:`s R_B R_A^\top = U S V^\top`: the product is never computed. Without a
  limit it is exact, and drops zero directions: a sum of T LoRAs of rank r
  (``merge.sum``) has the rank T r or less. With a limit it is nearest to the
  product among all factors of that rank.

  Args:
    delta: a task vector, leaves ``Factors`` or arrays; ``None`` leaves are left
      out. One leaf at a time is read, if it is on demand.
    rank: the largest rank r >= 1.
    energy: the part of the squared norm of each matrix that its factors
      represent at least, 0 < energy <= 1.
    parameters: the number of entries of all factors together. Ranks of leaves
      are chosen to leave out the least of the squared norm of the whole. The
      limits may be combined.
    dtype: the dtype of the factors; float32 or wider by default.

  Returns:
    The factors by the name of the leaf, with scale 1, equal norms of A and B,
    and orthogonal directions in descending order; arrays in ``rest``; and the
    errors of the leaves in factors: what a limit leaves out, and the rounding
    to a narrower ``dtype``. In a trace the ranks are ``rank`` or what
    shapes allow, and no zeros are left out.

  Raises:
    ValueError: if a limit is out of range, or traced where the ranks depend on
      values; or if a leaf is a stack or has values that are not finite, naming
      it.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, merge, tree
    >>> view = tree.Matrix(rows=(1,), columns=(0,))
    >>> one = adapters.Factors(jnp.ones((1, 3)), jnp.ones((2, 1)), 0.5, (2, 3),
    ...                        view)
    >>> both = merge.sum(adapters.stack([{'w': one}, {'w': one}]))
    >>> found = compress(both)
    >>> both['w'].rank, found.factors['w'].rank
    (2, 1)
    >>> adapters.dense(found.factors['w']).round(4).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

  Reference:
    Eckart and Young, "The approximation of one matrix by another of lower
    rank", 1936; Halko, Martinsson and Tropp, "Finding structure with
    randomness", 2011, arXiv:0909.4061, section 5, for the SVD of a product.
  """
  _check(rank, energy, parameters)
  _checks.dtype('compress', dtype)
  named = tree.named(delta, is_leaf=deltas.is_factors)
  factored = {k: x for k, x in named.items() if deltas.is_factors(x)}
  rest = {k: x for k, x in named.items() if k not in factored}
  traced = tree.is_traced(factored)
  if traced and (energy is not None or parameters is not None):
    raise ValueError(
      'compress: ranks by energy= or parameters= depend on values, which are '
      'traced: give rank='
    )
  parts = {name: _decompose(name, x) for name, x in factored.items()}
  if traced:
    ranks = {name: part[2].shape[-1] for name, part in parts.items()}
  else:
    ranks = _ranks(factored, parts, energy, parameters, rank)
  factors: dict[str, deltas.Factors] = {}
  errors: dict[str, Any] = {}
  for name, x in factored.items():
    kept = ranks[name] if rank is None else min(rank, ranks[name])
    errors[name], pair = _cut(parts.pop(name), kept, dtype)
    if kept:
      factors[name] = deltas.Factors(*pair, 1.0, x.shape, x.view)
  return extract.Extraction(factors, rest, errors)


def _check(rank: Any, energy: Any, parameters: Any) -> None:
  """Checks the limits of ``compress``."""
  _checks.whole('compress', rank=rank, parameters=parameters)
  _checks.share('compress', energy=energy)


def _decompose(name: str, x: deltas.Factors) -> tuple[Any, Any, Any]:
  """Returns A, B and the singular values of one leaf, largest first."""
  if x.stacked:
    raise ValueError(
      f"compress: leaf '{name}' is a stack of factors: merge it by merge.sum"
    )
  deltas.check_shapes('compress', name, x)
  tree.check_real('compress', {name: x.b}, 'only real ones are decomposed')
  node = tree.apply_kernel(_balanced, x.a, x.b, scale=x.scale)
  a, b, s = tree.read(node)
  if not isinstance(s, jax.core.Tracer) and not np.all(np.isfinite(s)):
    raise ValueError(
      f"compress: leaf '{name}' has values that are not finite, or too large: "
      'leave it out'
    )
  return a, b, s


def _balanced(
  a: types.Array, b: types.Array, *, scale: types.Scalar
) -> tuple[types.Array, types.Array, types.Array]:
  """Returns factors with orthogonal directions, and singular values."""
  wide = tree.wide_dtype(a, b)
  t = jnp.matrix_transpose
  q_a, r_a = jnp.linalg.qr(t(a.astype(wide)))
  q_b, r_b = jnp.linalg.qr(b.astype(wide) * jnp.asarray(scale).astype(wide))
  core = tree.matmul(r_b, t(r_a))
  u, s, vt = jnp.linalg.svd(core, full_matrices=False)
  shape = (b.shape[-2], a.shape[-1])
  s = s * tree.significant(s, shape, s[..., :1])
  # A product with a mask of zeros may be compiled to a choice of zero for NaN.
  s = jnp.where(jnp.all(jnp.isfinite(core)), s, jnp.full_like(s, jnp.nan))
  root = jnp.sqrt(s)[..., None, :]
  return t(tree.matmul(q_a, t(vt) * root)), tree.matmul(q_b, u * root), s


def _ranks(
  factored: dict[str, deltas.Factors],
  parts: dict[str, tuple[Any, Any, Any]],
  energy: float | None,
  parameters: int | None,
  rank: int | None,
) -> dict[str, int]:
  """Returns the rank of each leaf."""
  squares, costs, ranks = {}, {}, {}
  for name, (a, b, s) in parts.items():
    of_matrices = np.square(np.asarray(s, np.float64)).reshape(-1, s.shape[-1])
    kept = budget.by_energy(of_matrices, energy)
    ranks[name] = kept if rank is None else min(kept, rank)
    squares[name] = of_matrices.sum(0)[: ranks[name]]
    costs[name] = (a.size + b.size) // max(s.shape[-1], 1)
  if parameters is None:
    return ranks
  return budget.by_parameters(squares, costs, parameters)


def _cut(
  part: tuple[Any, Any, Any], kept: int, dtype: Any
) -> tuple[Any, tuple[Any, Any]]:
  """Returns the error of the leading factors, and the factors in a dtype."""
  a, b, s = part
  wide = np.dtype(a.dtype)
  dtype = wide if dtype is None else np.dtype(dtype)
  pair = (
    tree.narrow(a[..., :kept, :], dtype),
    tree.narrow(b[..., :kept], dtype),
  )
  if dtype.itemsize < wide.itemsize:
    error = tree.apply_kernel(_lost, a, b, s, *pair)
  else:
    error = tree.apply_kernel(_left_out, s, kept=kept)
  return error if isinstance(error, jax.core.Tracer) else float(error), pair


def _left_out(s: types.Array, *, kept: types.Scalar) -> types.Array:
  """Returns the norm beyond a rank, relative to all singular values."""
  s = tree.safe_divide(s, jnp.max(s, initial=0))
  out = jnp.where(jnp.arange(s.shape[-1]) < kept, jnp.zeros_like(s), s)
  return tree.safe_divide(jnp.linalg.norm(out), jnp.linalg.norm(s))


def _lost(
  a: types.Array,
  b: types.Array,
  s: types.Array,
  found_a: types.Array,
  found_b: types.Array,
) -> types.Array:
  """Returns the norm of B A less the rounded product, relative to B A.

  The difference is a product of joined factors, [B, -B'] [A; A'], whose norm is
  that of the product of their triangular factors.
  """
  t = jnp.matrix_transpose
  left = jnp.concatenate([b, -found_b.astype(b.dtype)], -1)
  right = jnp.concatenate([t(a), t(found_a.astype(a.dtype))], -1)
  r_left, r_right = (jnp.linalg.qr(x, mode='r') for x in (left, right))
  lost = jnp.linalg.norm(tree.matmul(r_left, t(r_right)))
  return tree.safe_divide(lost, jnp.linalg.norm(s))
