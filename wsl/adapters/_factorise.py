"""Models whose matrices are factors of low rank, by weights or activations."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.adapters import _checks, _leaves
from wsl.adapters._decompose import budget


class Factorised(NamedTuple):
  """A model of low rank, and what it leaves out.

  Attributes:
    params: the model; matrices that became smaller are ``Factors``.
    errors: by the name of the leaf the norm of the difference, relative to that
      of the matrix; of its outputs where there are Gram matrices.
    sizes: the numbers of parameters of all leaves, before and after.
  """

  params: types.Params
  errors: dict[str, float]
  sizes: tuple[int, int]


def factorise(
  params: types.Params,
  *,
  rank: int | None = None,
  energy: float | None = None,
  ratio: float | None = None,
  grams: types.Tree | None = None,
  leaves: types.Leaves = '',
  matrices: tree.Matrices | None = None,
  dtype: Any = None,
) -> Factorised:
  r"""Replaces the matrices of a model by factors of low rank.

  .. math:: \min_{\operatorname{rank} \hat W \le r} |X (W - \hat W)|_F
    \quad \Rightarrow \quad \hat W = W V_r V_r^\top, \qquad
    G^{1/2} W = U S V^\top, \quad G = X^\top X / n

  for a map :math:`x W` with inputs X. The minimum needs no inverse, and holds
  for singular G. Without Gram matrices G is the identity, and the result is the
  truncated singular value decomposition of W.

  A leaf becomes factors where these have fewer parameters than the matrix.
  ``adapters.call`` applies the model without products of factors,
  ``adapters.dense`` returns a model of arrays.

  Args:
    params: the model, leaves ``[...]``, on demand or not; read one by one.
    rank: the largest rank r >= 1.
    energy: the part of :math:`|G^{1/2} W|^2` that the factors keep at least,
      0 < energy <= 1.
    ratio: the largest part of its parameters that a matrix keeps,
      0 < ratio <= 1: :math:`r = \rho m n / (m + n)`, at least 1. At least one
      of the three is given; the smallest rank holds.
    grams: a tree like params of ``types.Gram`` or None, of ``stats.gram``, for
      errors of outputs. A leaf without one is decomposed by its entries.
    leaves: the leaves that are factorised, by a regular expression or a
      predicate on (name, shape). All matrices by default: embeddings too.
    matrices: as in ``tree.views``; leaves that are no matrices stay.
    dtype: the dtype of the factors; the leaf's by default.

  Returns:
    The model with errors and sizes.

  Raises:
    ValueError: if a number is out of range, none is given, a Gram matrix does
      not fit its leaf, or a matrix is complex, not finite, traced, or in
      factors.

  Example:
    >>> import jax.numpy as jnp
    >>> w = jnp.outer(jnp.arange(1.0, 9.0), jnp.ones(8))
    >>> small = factorise({'w': w, 'b': jnp.ones(8)}, rank=1)
    >>> small.sizes, round(small.errors['w'], 4)
    ((72, 24), 0.0)
    >>> small.params['w'].rank
    1

  Reference:
    Chen et al., "DRONE: Data-aware Low-rank Compression for Large NLP Models",
    2021, NeurIPS; Guo et al., "PELA: Learning Parameter-Efficient Models with
    Low-Rank Approximation", 2023, arXiv:2310.10700; Cahyawijaya, "Greenformers:
    Improving Computation and Memory Efficiency in Transformer Models via
    Low-Rank Approximation", 2021, arXiv:2108.10808.

  Greenformers has the rule of ``ratio`` and no Gram matrices. PELA trains the
  factors after the decomposition.
  """
  _check(rank, energy, ratio)
  _checks.dtype('factorise', dtype)
  _checks.arrays('factorise', params, 'give adapters.dense of the model')
  found = _leaves.matrices('factorise', params, leaves, matrices)
  given = _grams(params, grams)
  factors: dict[str, deltas_lib.Factors] = {}
  errors: dict[str, float] = {}
  for name, (leaf, view) in found.items():
    most = _most(view.sizes(leaf.shape), rank, ratio)
    gram = given.get(name)
    if gram is not None:
      _check_gram(name, leaf, view, gram)
    if not leaf.size:
      errors[name] = 0.0
      continue
    one, error = _of_leaf(name, leaf, view, gram, most, energy, dtype)
    smaller = one.a.size + one.b.size < leaf.size
    errors[name] = error if smaller else 0.0
    if smaller:
      factors[name] = one
  new = tree.map_named(lambda name, x: factors.get(name, x), params)
  before = sum(int(x.size) for x in tree.named(params).values())
  saved = sum(
    int(found[k][0].size) - int(x.a.size + x.b.size) for k, x in factors.items()
  )
  return Factorised(new, errors, (before, before - saved))


def _check(rank: Any, energy: Any, ratio: Any) -> None:
  """Checks the numbers of ``factorise``."""
  if rank is None and energy is None and ratio is None:
    raise ValueError('factorise: give rank=, energy= or ratio=')
  _checks.whole('factorise', rank=rank)
  _checks.share('factorise', energy=energy, ratio=ratio)


def _grams(params: types.Params, grams: types.Tree) -> dict[str, types.Gram]:
  """Returns the Gram matrices by the names of leaves."""
  if grams is None:
    return {}
  is_gram = lambda x: x is None or isinstance(x, types.Gram)
  named = tree.named(grams, is_leaf=is_gram)
  for name in set(named) - set(tree.named(params)):
    raise ValueError(f"factorise: the model has no leaf '{name}' of grams=")
  return {k: x for k, x in named.items() if x is not None}


def _check_gram(
  name: str, leaf: Any, view: tree.Matrix, gram: types.Gram
) -> None:
  """Checks that a Gram matrix has the inputs and the blocks of a leaf."""
  groups, n, _ = view.sizes(leaf.shape)
  shape = tuple(gram.matrix.shape)
  if shape not in ((groups, n, n), (1, n, n)) or view.rows != tuple(gram.axes):
    raise ValueError(
      f"factorise: leaf '{name}' has {groups} matrices of {n} inputs in axes "
      f'{view.rows}, its Gram matrix is {shape} of axes {tuple(gram.axes)}: '
      'take stats.gram of this model'
    )


def _most(
  sizes: tuple[int, int, int], rank: int | None, ratio: float | None
) -> int:
  """Returns the largest rank of a leaf."""
  _, m, n = sizes
  bounds = [m, n]
  if rank is not None:
    bounds.append(rank)
  if ratio is not None:
    # 1e-9: such as 0.1 * 30, which may round down.
    bounds.append(max(int(ratio * m * n / (m + n) + 1e-9), 1))
  return min(bounds)


def _of_leaf(
  name: str,
  leaf: Any,
  view: tree.Matrix,
  gram: types.Gram | None,
  most: int,
  energy: float | None,
  dtype: Any,
) -> tuple[deltas_lib.Factors, float]:
  """Returns the factors of a leaf and their error."""
  operands = (leaf,) if gram is None else (leaf, gram.matrix)
  a, b, kept, error = tree.read(
    tree.apply_kernel(
      _decompose,
      *operands,
      view=tree.Static(view),
      most=tree.Static(most),
      energy=float('inf') if energy is None else float(energy),
      dtype=tree.Static(np.dtype(leaf.dtype if dtype is None else dtype)),
    )
  )
  if not np.isfinite(error):
    raise ValueError(
      f"factorise: leaf '{name}' or its Gram matrix has values that are not "
      'finite: mend them, or leave the leaf out by leaves='
    )
  kept = max(int(kept), 1)
  a, b = a[..., :kept, :], b[..., :kept]
  if not view.batch and view.groups == 1:
    a, b = a[0], b[0]
  shape = tuple(leaf.shape)
  return deltas_lib.Factors(a, b, 1.0, shape, view), float(error)


def _decompose(
  x: types.Array,
  *grams: types.Array,
  view: tree.Matrix,
  most: int,
  energy: types.Scalar,
  dtype: np.dtype,
) -> tuple[types.Array, ...]:
  """Returns A, B, their rank (columns beyond it are zero), and the error.

  By Eckart and Young the best Y of rank r for R W, with R^T R = G, is
  R W V_r V_r^T. It is R times W V_r V_r^T, which has rank r: so R W_r = Y.
  """
  x = view.split(tree.wide(x))  # [G, in, out]
  size = jnp.max(jnp.abs(x), keepdims=True)
  w = tree.safe_divide(x, size)
  root = _root(grams[0].astype(w.dtype)) if grams else None
  weigh = lambda y: y if root is None else tree.matmul(root, y)
  y = weigh(w)
  part = tree.leading(y, most)
  _, s, vt = tree.triplets(part, y.shape)
  total = jnp.sum(jnp.square(y), (-2, -1))[:, None]
  wanted = budget.needed(jnp.square(s), total, energy)
  v = jnp.matrix_transpose(vt) * wanted[..., None, :].astype(vt.dtype)
  left = tree.matmul(w, v)  # [G, in, r]
  # Both factors get the root of the norm.
  norm = jnp.sqrt(jnp.sum(jnp.square(left), -2, keepdims=True))
  share = jnp.sqrt(tree.safe_divide(size, norm))
  a = tree.narrow(jnp.matrix_transpose(left * share), dtype)
  b = tree.narrow(v * jnp.sqrt(norm * size), dtype)
  product = tree.matmul(
    jnp.matrix_transpose(a.astype(w.dtype)),
    tree.safe_divide(jnp.matrix_transpose(b.astype(w.dtype)), size),
  )
  lost = jnp.sum(jnp.square(weigh(w - product)))
  error = jnp.sqrt(tree.safe_divide(lost, jnp.sum(total)))
  return a, b, jnp.max(jnp.sum(wanted, -1)), error


def _root(gram: types.Array) -> types.Array:
  """Returns R with R^T R = G, for singular G too."""
  # The scale of G has no influence, and would overflow or underflow.
  size = jnp.max(jnp.abs(gram), (-2, -1), keepdims=True)
  values, vectors = jnp.linalg.eigh(tree.safe_divide(gram, size))
  root = jnp.sqrt(jnp.maximum(values, 0))[..., None]
  return root * jnp.matrix_transpose(vectors)
