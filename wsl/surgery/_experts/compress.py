"""Merged experts as factors of low rank and a residual with few columns."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import adapters, deltas, tree, types

# Leaves [G, in, out] of stacked experts.
_MATRICES = tree.Matrix(batch=(0,), rows=(1,), columns=(2,))


class ResidualColumns(NamedTuple):
  """Some columns of matrices; the others are zero.

  Attributes:
    which: which columns, int32 ``[B, k]``.
    values: ``[B, in, k]``.
  """

  which: types.Array
  values: types.Array


class CompressedExperts(NamedTuple):
  """Experts as sums of low-rank matrices and of matrices with few columns.

  Attributes:
    factors: L R, ``adapters.Factors`` by the name of the leaf.
    columns: S, by the name of the leaf.
    rest: leaves that are no matrices, such as biases, as they are.
  """

  factors: dict[str, adapters.Factors]
  columns: dict[str, ResidualColumns]
  rest: dict[str, Any]


def compress_experts(
  experts: types.Params,
  *,
  ratio: float,
  keep: float,
  matrices: tree.Matrices | None = None,
) -> CompressedExperts:
  r"""Splits each matrix into a low-rank part and a sparse residual.

  .. math:: W = L R + S, \qquad L = U_r \Sigma_r^{1/2}, \quad
    R = \Sigma_r^{1/2} V_r^\top, \quad
    r = \lceil \rho \, m n / (m + n) \rceil

  where of S the columns of largest norm are kept. Merged experts have a lower
  rank than single ones. Leaves are decomposed one after the other.

  Args:
    experts: leaves ``[G, ...]`` of ``merge_experts``, or any tree; in memory or
      on demand.
    ratio: rho > 0, the entries of the factors relative to those of W.
    keep: the fraction of the columns (output units) of S that are kept,
      ``0 <= keep <= 1``; the number is rounded up.
    matrices: which leaves are matrices, as in ``tree.views``; leaves of three
      axes are ``[G, in, out]`` by default, and others are kept.

  Returns:
    The parts, in float32 or wider; ``restore_experts`` adds them.

  Raises:
    ValueError: if a number is out of range, or as ``adapters.extract``.

  Example:
    >>> w = jnp.asarray([[[4.0, 0.0], [0.0, 1.0]]])
    >>> found = compress_experts({'w': w}, ratio=0.5, keep=0.0)
    >>> restore_experts(found)['w'].round().tolist()
    [[[4.0, 0.0], [0.0, 0.0]]]
    >>> more = compress_experts({'w': w}, ratio=0.5, keep=0.5)
    >>> more.columns['w'].which.tolist(), more.columns['w'].values.shape
    ([[1]], (1, 2, 1))

  Reference:
    Li et al., "Merge, Then Compress: Demystify Efficient SMoE with Hints from
    Its Routing Policy", 2023, arXiv:2310.01334; Li et al., "LoSparse:
    Structured Compression of Large Language Models based on Low-Rank and Sparse
    Approximation", 2023, arXiv:2306.11222.

  The difference of an expert and its merge can be factored too:
  ``compress_experts`` of ``experts`` minus ``tie_experts(merged, groups)``,
  with ``keep=0``, gives each expert factors of its own.

  Differs from the official code, which prunes S gradually in training, by the
  sensitivity of the loss; here by norms, at once.
  """
  tree.check_scalars('compress_experts', ratio=ratio, keep=keep)
  if not 0 < ratio < math.inf or not 0 <= keep <= 1:
    raise ValueError(
      f'compress_experts(ratio={ratio}, keep={keep}): expected ratio > 0 and '
      '0 <= keep <= 1'
    )
  rule = _default_rule if matrices is None else matrices
  try:
    views = tree.views(experts, rule, otherwise='mean')
  except ValueError as error:
    raise ValueError(f'compress_experts: {error}') from None
  is_view = lambda x: x is None or isinstance(x, tree.Matrix)
  view_of = tree.named(views, is_leaf=is_view)
  factors: dict[str, adapters.Factors] = {}
  columns: dict[str, ResidualColumns] = {}
  rest: dict[str, Any] = {}
  for name, leaf in tree.named(experts).items():
    view = view_of[name]
    if view is None or not view.is_matrix:
      rest[name] = leaf
      continue
    _, m, n = view.sizes(leaf.shape)
    rank = min(math.ceil(ratio * m * n / (m + n)), m, n)
    one = {name: leaf}
    try:
      found = adapters.extract(one, rank=rank, matrices=lambda *_, v=view: v)
    except ValueError as error:
      raise ValueError(f'compress_experts: {error}') from None
    whole = tree.read(leaf)
    if name not in found.factors:  # the leaf is zero
      rest[name] = whole
      continue
    factors[name] = found.factors[name]
    columns[name] = tree.apply_kernel(
      _columns,
      whole,
      deltas.dense(factors[name]),
      view=tree.Static(view),
      count=tree.Static(math.ceil(keep * n)),
    )
  return CompressedExperts(factors, columns, rest)


def restore_experts(compressed: CompressedExperts) -> types.Params:
  r"""Returns the experts, :math:`W = L R + S`.

  Args:
    compressed: of ``compress_experts``.

  Returns:
    The experts in nested dicts, in float32 or wider; leaves that were no
    matrices in their own dtype.

  Example:
    >>> restore_experts(CompressedExperts({}, {}, {'up/bias': 1.0}))
    {'up': {'bias': 1.0}}
  """
  matrices = {
    name: tree.apply_kernel(
      _restore,
      deltas.dense(low),
      *compressed.columns[name],
      view=tree.Static(low.view),
    )
    for name, low in compressed.factors.items()
  }
  return tree.nest({**matrices, **compressed.rest}, separator='/')


def _default_rule(name: str, shape: tuple[int, ...]) -> tree.Matrix | None:
  """Returns the view of a leaf of stacked experts."""
  del name
  return _MATRICES if len(shape) == 3 else None


def _columns(
  x: types.Array, low: types.Array, *, view: tree.Matrix, count: int
) -> ResidualColumns:
  """Returns the columns of largest norm of the residual."""
  # Of all sets of k columns those of largest norm leave the least error: the
  # squared error is the sum over the columns that are left out.
  low = low.astype(tree.wide_dtype(x, low))
  residual = view.split(x.astype(low.dtype) - low)
  _, best = jax.lax.top_k(jnp.sum(jnp.square(residual), -2), count)
  index = jnp.sort(best, -1).astype(jnp.int32)
  values = jnp.take_along_axis(residual, index[:, None], axis=-1)
  return ResidualColumns(index, values)


def _restore(
  low: types.Array,
  index: types.Array,
  values: types.Array,
  *,
  view: tree.Matrix,
) -> types.Array:
  """Adds columns to a low-rank matrix."""
  matrices = view.split(low)
  batch = jnp.arange(len(matrices))[:, None]
  rows = jnp.swapaxes(matrices, -2, -1)
  more = jnp.swapaxes(values, -2, -1).astype(rows.dtype)
  rows = rows.at[batch, index].add(more)
  return view.join(jnp.swapaxes(rows, -2, -1), low.shape)
