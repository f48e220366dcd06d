"""Alignment of the leading singular vectors of two models."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.landscape import _interpolate


class SingularAlignment(NamedTuple):
  """Alignment of singular vectors.

  Attributes:
    leaves: a tree like the models, ``[]`` in -1 .. 1 for each matrix; None
      for other leaves.
    counts: numbers of retained singular values of a and of b, ``[2]`` for each
      matrix; None for other leaves.
    mean: the mean of ``leaves``, ``[]``, with equal weight for every matrix.
  """

  leaves: types.Tree
  counts: types.Tree
  mean: types.Array


def singular_alignment(
  a: types.Params,
  b: types.Params,
  *,
  leaves: types.Leaves | None = None,
  threshold: float = 0.3,
) -> SingularAlignment:
  r"""Measures the alignment of the leading singular vectors of two models.

  .. math:: R = \frac{1}{\sqrt{r_a r_b}}
    \sum_{i \le r_a} \sum_{j \le r_b}
    (u_{a,i}^\top u_{b,j}) (v_{a,i}^\top v_{b,j})

  for each matrix, over the :math:`r` singular values of each model that are at
  least ``threshold`` times its largest. As :math:`\sum_i u_i v_i^\top` is the
  polar factor of the matrix truncated to rank r, R is the cosine between the
  two factors: 1 if and only if they are equal, about 0 for unrelated matrices,
  and independent of the signs of singular vectors and of their choice for equal
  singular values. The same sum weighted by singular values is the inner product
  of the matrices. A permutation of units changes singular vectors but not
  singular values, so it can reduce the distance of two matrices only by
  aligning their singular vectors.

  Args:
    a: a model, leaves ``[...]``.
    b: a model of the same names, shapes and dtypes.
    leaves: which leaves are matrices: a regular expression or a predicate on
      (name, shape); those of two or more axes if None. A leaf of more axes,
      such as a convolution, is reshaped to ``[product of all but last, last]``.
    threshold: fraction of the largest singular value, 0 .. 1; singular values
      below rounding error are excluded even at 0.

  Returns:
    A ``SingularAlignment``, 0 for a matrix that is zero in a or b.

  Raises:
    ValueError: naming the leaf in which the models differ, the chosen leaf that
      is not a matrix, or if ``threshold`` is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> a = {'w': jnp.asarray([[3.0, 0.0], [0.0, 1.0]])}
    >>> swapped = {'w': a['w'][::-1]}
    >>> singular_alignment(a, a).mean.item()
    1.0
    >>> singular_alignment(a, swapped).mean.item()
    0.0

  Reference:
    Ito, Yamada and Kumagai, "Analysis of Linear Mode Connectivity via
    Permutation-Based Weight Matching", 2024, arXiv:2402.04051.

  Differs from the reference in normalising by the geometric mean of the two
  counts, then averaging over matrices. If the counts are equal, as for a model
  and its permutations, all normalisations by a count agree.
  """
  tree.check_scalars('singular_alignment', threshold=threshold)
  if not 0 <= threshold <= 1:
    raise ValueError(
      f'singular_alignment: threshold={threshold}, expected a fraction of the '
      'largest singular value, 0 .. 1'
    )
  b = _interpolate.check_alike(a, b, name='singular_alignment')
  reason = 'only real matrices are decomposed'
  tree.check_real('singular_alignment', a, reason)
  chosen = tree.select(a, leaves or (lambda _, shape: len(shape) > 1))
  # Integers are no weights: counters, or the codes of quantised weights.
  chosen = jax.tree.map(lambda x, c: c and tree.is_float(x), a, chosen)
  if not any(jax.tree.leaves(chosen)):
    raise ValueError('singular_alignment: no leaf of floats has two axes')

  def measure(
    name: str, x: types.Array, y: types.Array, is_matrix: bool
  ) -> types.Array | None:
    if not is_matrix:
      return None
    if x.ndim < 2:
      raise ValueError(
        f"singular_alignment: leaf '{name}' of shape {x.shape} is chosen and "
        'has fewer than two axes: narrow `leaves`'
      )
    return tree.read(
      tree.apply_kernel(_cosine_and_counts, x, y, threshold=threshold)
    )

  found = tree.map_named(measure, a, b, chosen)
  cosines = jax.tree.map(lambda x: x[0], found)
  return SingularAlignment(
    leaves=cosines,
    counts=jax.tree.map(lambda x: x[1:], found),
    mean=tree.apply_kernel(_mean, *jax.tree.leaves(cosines)),
  )


def _mean(*numbers: types.Array) -> types.Array:
  return jnp.mean(jnp.stack(numbers))


def _cosine_and_counts(
  x: types.Array, y: types.Array, *, threshold: types.Scalar
) -> types.Array:
  """Returns the cosine and the two counts, ``[3]``."""
  p, p_count = _truncated_polar_factor(x, threshold)
  q, q_count = _truncated_polar_factor(y, threshold)
  # <sum_i u_i v_i^T, sum_j p_j q_j^T> is the double sum of the definition, and
  # a sum of r orthonormal terms has the norm sqrt(r): R is a cosine.
  count = jnp.maximum(p_count * q_count, 1)  # 0 / 1 if a matrix is zero
  cosine = jnp.sum(p * q) / jnp.sqrt(count)
  return jnp.stack([cosine, p_count, q_count])


def _truncated_polar_factor(
  x: types.Array, threshold: types.Scalar
) -> tuple[types.Array, types.Array]:
  """Returns the polar factor of leading singular vectors, and their number."""
  x = tree.wide(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
  if not x.size:
    return x, jnp.zeros((), x.dtype)
  u, s, vt = jnp.linalg.svd(x, full_matrices=False)
  # The rank tolerance of numpy.linalg.matrix_rank.
  rounding = max(x.shape) * jnp.finfo(s.dtype).eps
  least = jnp.maximum(jnp.asarray(threshold, s.dtype), rounding) * s[0]
  kept = jnp.asarray((s >= least) & (s > 0), s.dtype)
  return tree.matmul(u * kept[None], vt), jnp.sum(kept)
