"""BitStack: blocks of signs and magnitudes of low rank; any prefix decodes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.codecs import _bits, _packed, _views
from wsl.codecs._blocks import leaf as leaf_lib

_HALF = np.dtype(np.float16)
# An input that never occurs keeps a weight, so that its row is approximated.
_LEAST_WEIGHT = 1e-3


def bitstack(
  delta: types.Delta,
  *,
  blocks: int = 16,
  rank: int = 16,
  grams: types.Tree | None = None,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> _packed.Packed:
  r"""Decomposes matrices into blocks of signs and magnitudes of low rank.

  .. math:: S_i = \operatorname{sgn} R_i, \quad U_i V_i = [\,|R_i|\,]_k, \quad
    R_{i+1} = R_i - S_i \odot U_i V_i, \quad
    \hat\tau = \sum_{i < b} S_i \odot U_i V_i

  with :math:`R_0 = \tau`, or :math:`\operatorname{diag}(w) \tau` with the root
  mean squares w of the inputs, and :math:`[\cdot]_k` the nearest matrix of rank
  k. A sign times a magnitude has the norm of the magnitude, so each block takes
  from the squared norm what the k leading singular values of :math:`|R_i|`
  have: no block increases it, but for the rounding of U and V to float16, which
  the next block sees. |R| is nearly of rank one, since it is positive.

  A block of a matrix ``[m, n]`` takes m n / 8 + 2 k (m + n) bytes: 1.125 bits
  an entry at 4096 x 4096 and k = 16.

  Args:
    delta: one task vector, every leaf ``[...]``, on demand or not; factors of
      low rank are multiplied.
    blocks: n >= 1, the most blocks of a matrix; it has fewer if they would take
      as many bytes as its entries, and is stored as it is if one block does.
    rank: k >= 1, limited by the sides of a matrix.
    grams: ``stats.gram`` of the model on calibration data, or None: the error
      is then that of the outputs, if the inputs were independent.
    matrices: which leaves are matrices, as in ``tree.views``; those with a Gram
      matrix are. Vectors and integers are stored as they are.
    otherwise: leaves of more than two axes without a rule: ``'refuse'``, or
      ``'keep'``, which stores them as they are.

  Returns:
    The pack, whose matrices are ``codecs.SignBlocks``. ``codecs.truncate`` cuts
    it to a number of bytes; any number of first blocks decodes.

  Raises:
    ValueError: if ``blocks`` or ``rank`` is no positive integer, or a leaf has
      no view, is complex, or is not finite, naming it.

  Example:
    >>> import numpy as np
    >>> from wsl import codecs
    >>> w = np.random.default_rng(0).standard_normal((32, 32))
    >>> packed = codecs.bitstack({'w': w.astype(np.float32)}, blocks=3, rank=1)
    >>> (packed.leaves['w'].norms / np.linalg.norm(w)).round(2).tolist()
    [1.0, 0.58, 0.34, 0.23]

  Reference:
    Wang et al., "BitStack: Any-Size Compression of Large Language Models in
    Variable Memory Environments", 2024, arXiv:2410.23918.

  Differs from the official code, which folds w into the layer before, in
  storing w beside the matrix (a task vector has no layer before it); in taking
  w from the second moments, where that code averages norms over sequences; and
  in matrices of any size, where that code needs a multiple of 8 entries.
  """
  for name, value in {'blocks': blocks, 'rank': rank}.items():
    tree.check_whole('bitstack', **{name: value})
    if value < 1:
      raise ValueError(f'bitstack({name}={value!r}): expected an integer >= 1')
  structure = jax.tree.structure(delta, is_leaf=deltas_lib.is_factors)
  named = tree.named(deltas_lib.dense(delta))
  _packed.check_known('bitstack', named)
  tree.check_real('bitstack', named, 'only real ones have signs')
  tree.check_finite('bitstack', named, remedy='leave this model out')
  views = _views.of('bitstack', named, matrices, otherwise, grams)
  leaves = [
    _leaf(name, x, views[name], blocks, rank) for name, x in named.items()
  ]
  return _packed.Packed(jax.tree.unflatten(structure, leaves), 'bitstack')


def _leaf(
  name: str, leaf: Any, view: _views.View | None, blocks: int, rank: int
) -> Any:
  """Returns the blocks of a leaf; vectors are returned as they are."""
  if view is None:
    return leaf
  gram = () if view.gram is None else (jnp.asarray(view.gram),)
  groups, m, n = view.view.sizes(leaf.shape)
  rank = min(rank, m, n)
  each = groups * (_bits.nbytes(m * n) + 2 * rank * (m + n))
  nbytes = leaf.size * leaf.dtype.itemsize
  blocks = min(blocks, (nbytes - 1) // max(each, 1))
  if blocks < 1:
    return leaf
  node = tree.Computed(
    _decompose,
    (leaf, *gram),
    {
      'view': tree.Static(view.view),
      'blocks': tree.Static(blocks),
      'rank': tree.Static(rank),
    },
  )
  signs, left, right, scale, weights, norms = map(np.asarray, tree.read(node))
  if not np.all(np.isfinite(norms)):
    raise ValueError(
      f"bitstack: leaf '{name}' has values that are not finite: leave this "
      'model out'
    )
  return leaf_lib.SignBlocks(
    signs,
    left,
    right,
    scale,
    weights if gram else None,
    norms.astype(np.float32),
    tuple(leaf.shape),
    leaf.dtype.name,
    view.view,
  )


def _decompose(
  x: types.Array,
  gram: types.Array | None = None,
  *,
  view: tree.Matrix,
  blocks: int,
  rank: int,
) -> tuple[types.Array, ...]:
  """Returns signs, left and right factors, scale, weights and norms."""
  matrices = view.split(tree.wide(x))  # [G, in, out]
  weights = jnp.ones(matrices.shape[:2], np.float32)
  if gram is not None:
    mean_square = jnp.diagonal(gram, axis1=-2, axis2=-1)
    size = jnp.sqrt(jnp.maximum(mean_square, 0))
    size = tree.safe_divide(size, jnp.mean(size, -1, keepdims=True))
    weights = jnp.maximum(size, _LEAST_WEIGHT).astype(np.float32)
  start = matrices * weights.astype(matrices.dtype)[..., None]
  # A power of two near the largest entry keeps the factors within float16.
  _, exponent = jnp.frexp(jnp.max(jnp.abs(start)))
  scale = jnp.ldexp(jnp.ones((), matrices.dtype), exponent)
  start = start / scale
  norm = lambda r: jnp.sqrt(jnp.sum(jnp.square(r))) * scale

  def step(rest: types.Array, _: None) -> tuple[types.Array, Any]:
    left, right = _leading(jnp.abs(rest), rank)
    positive = rest >= 0
    magnitude = tree.matmul(left.astype(rest.dtype), right.astype(rest.dtype))
    rest = rest - jnp.where(positive, magnitude, -magnitude)
    signs = _bits.pack(positive.reshape(len(rest), -1))
    return rest, (signs, left, right, norm(rest))

  _, (signs, left, right, norms) = jax.lax.scan(step, start, length=blocks)
  norms = jnp.concatenate([norm(start)[None], norms])
  return signs, left, right, scale, weights, norms


def _leading(x: types.Array, rank: int) -> tuple[types.Array, types.Array]:
  """Returns U S^(1/2) and S^(1/2) V^T of the leading subspaces, in float16."""
  u, s, vt = tree.triplets(tree.leading(x, rank), x.shape)
  root = jnp.sqrt(s)
  left, right = u * root[..., None, :], root[..., :, None] * vt
  return tree.narrow(left, _HALF), tree.narrow(right, _HALF)
