"""Isotropic merging: equal singular values for the merged task matrix."""

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._spectral import columns, matrix

# Differences have rounding errors of some eps at any size: their singular
# values count as those of so many rows at least.
_ROWS = 256


@deltas_lib.on_stacks
def iso_c(
  deltas: types.Deltas,
  *,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Delta:
  r"""Replaces the singular values of the summed task matrix by their mean.

  .. math:: \sum_t \tau_t = U \Sigma V^\top, \qquad
    \tau = \bar\sigma U V^\top, \qquad
    \bar\sigma = \tfrac{1}{r} \textstyle\sum_{i=1}^{r} \sigma_i

  Vectors are averaged. Scanned layers, experts and feature groups are merged
  matrix by matrix. A matrix and its transpose give the same merge.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    matrices: which leaves are matrices and which of their axes are batch, rows
      and columns: any of the forms of ``tree.views``.
    otherwise: ``'refuse'`` or ``'mean'``, see ``tree.views``; the official code
      averages convolutions.

  Returns:
    The merged task vector, every leaf ``[...]``; scale it in ``deltas.apply``.
    For T = 1 it is not the model's own task vector.

  Raises:
    ValueError: as ``tree.views``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[[3.0, 0.0], [0.0, 1.0]]])}
    >>> iso_c(deltas)['w'].round(5).tolist()
    [[2.0, 0.0], [0.0, 2.0]]

  Reference:
    Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common
    and Task-Specific Subspaces", 2025, arXiv:2502.04959.

  Differs from the official code for matrices of deficient rank r. Singular
  vectors of zero singular values are arbitrary; they stay out here, and the
  mean is over the r nonzero values. That code includes them.

  On a GPU, float32 leaves need no singular vectors: :math:`U V^\top` is a polar
  factor, from matrix products by Newton-Schulz steps, and :math:`\sum_i
  \sigma_i` its inner product with the sum. On a CPU, and in float64, the factor
  is from an SVD, which is faster there. Both are within 1e-5 of float64 if no
  singular value is below :math:`4 \sqrt{\max(m, n)}` eps of the largest;
  smaller ones count as zero.
  """
  return matrix.on_matrices(
    'iso_c', _iso_c, deltas, matrices, otherwise, wide='transpose'
  )


@deltas_lib.on_stacks
def iso_cts(
  deltas: types.Deltas,
  *,
  common: float = 0.8,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Delta:
  r"""Flattens the spectrum over common and task-specific directions.

  With :math:`U_c, V_c` the top ``k_c`` singular vectors of
  :math:`\sum_t \tau_t`, take from each task the top ``s`` triplets of

  .. math:: \tau_t - \tau_t V_c V_c^\top, \qquad s = (\min(m, n) - k_c) / T,

  (V on the side of the outputs), concatenate them with the common ones,
  orthonormalise both sides by their polar factors, and set all singular values
  to their mean:

  .. math:: \tau = \bar\sigma\, [U_1 \dots U_T\, U_c]_\perp
    [V_1 \dots V_T\, V_c]_\perp^\top

  Vectors are averaged; stacks are merged matrix by matrix, as in ``iso_c``.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``; without rules the
      last axis of a matrix is the output, as in Flax. The method depends on the
      side: for weights stored ``[out, in]`` take ``matrices=tree.torch``.
    common: the fraction of common directions, 0 .. 1; ``k_c`` is ``min(m, n)``
      minus T times the rounded (half to even) task share of the rest.
    matrices: as in ``iso_c``. The side of the outputs is that of the columns of
      ``tree.Matrix``.
    otherwise: as in ``iso_c``.

  Returns:
    The merged task vector, every leaf ``[...]``; scale it in ``deltas.apply``.

  Raises:
    ValueError: if ``common`` is out of range, or as in ``iso_c``.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[[3.0, 0.0], [0.0, 1.0]]])}
    >>> iso_cts(deltas, common=0.5)['w'].round(5).tolist()
    [[2.0, 0.0], [0.0, 2.0]]

  Reference:
    Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common
    and Task-Specific Subspaces", 2025, arXiv:2502.04959.

  Differs from the official code for zero singular values, see ``iso_c``, and
  rounds s down where T s would exceed the number of directions.

  float32 leaves are decomposed as in ``tsv``, with the same error.
  """
  remedy = 'merge groups of leaves one by one'
  tree.check_scalars('iso_cts', remedy=remedy, common=common)
  if isinstance(common, jax.core.Tracer):
    raise ValueError(
      'iso_cts: common is traced, and sets shapes: give a number that is known'
    )
  meaning = 'the fraction of common directions'
  _checks.fraction('iso_cts', 'common', common, meaning)
  return matrix.on_matrices(
    'iso_cts',
    _iso_cts,
    deltas,
    matrices,
    otherwise,
    wide='tell',
    common=tree.Static(float(common)),
  )


def _iso_c(x: types.Array) -> types.Array:
  """Flattens the spectra of the sums of ``[T, B, m, n]``."""
  total = _stack.sum_models(x)
  factor = tree.polar(total)
  # The singular values of the factor are 1 and 0: its square norm is the rank.
  # With U V^T the factor of U S V^T, the sum of S is <U V^T, U S V^T>.
  over = lambda y: jnp.sum(y, (-2, -1), keepdims=True)
  rank = jnp.round(over(jnp.square(factor)))
  # The sum is dominated by directions that tasks share: it represents weakly
  # aligned tasks by small singular values. Equal values restore them; their
  # mean keeps the nuclear norm.
  return over(factor * total) / jnp.maximum(rank, 1) * factor


def _iso_cts(x: types.Array, *, common: float, transposed: bool) -> types.Array:
  """Flattens spectra over common and task directions of ``[T, B, m, n]``."""
  rank = min(x.shape[2:])
  each = min(round((rank - int(common * rank)) / len(x)), rank // len(x))
  shared = rank - each * len(x)
  total = tree.leading(_stack.sum_models(x), shared)
  # What the common directions represent is removed before each task's own SVD,
  # so that its directions are new ones. Their side is that of the outputs.
  side = total.u if transposed else total.v
  side = jnp.broadcast_to(side, (len(x), *side.shape))
  if transposed:
    seen = tree.matmul(side, tree.matmul(_transpose(side), x))
  else:
    seen = tree.matmul(tree.matmul(x, side), _transpose(side))
  own = tree.leading(x - seen, each)
  join = lambda tasks, last: jnp.concatenate([columns.join(tasks), last], -1)
  sizes = lambda core: jnp.diagonal(core, axis1=-2, axis2=-1)
  s = join(sizes(own.core)[..., None, :], sizes(total.core)[..., None, :])
  # Singular vectors of zero singular values are arbitrary: leave them out. The
  # differences to the common part have rounding errors of some eps at any size.
  sides = (max(x.shape[2:]), _ROWS)
  real = tree.significant(s, sides, jnp.max(s, -1, keepdims=True))
  left, right = columns.polar_factors(
    join(own.u, total.u) * real, join(own.v, total.v) * real
  )
  mean = jnp.sum(s * real, -1) / jnp.maximum(jnp.sum(real, -1), 1)
  return mean[..., None] * tree.matmul(left, _transpose(right))


_transpose = jnp.matrix_transpose
