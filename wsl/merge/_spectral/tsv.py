"""TSV-Merge: the leading singular vectors of each task, orthogonalised."""

import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _linear
from wsl.merge._spectral import columns, matrix


@deltas_lib.on_stacks
def tsv(
  deltas: types.Deltas,
  *,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Delta:
  r"""Merges matrices from the whitened leading singular vectors of the tasks.

  .. math:: \tau_t = U_t \Sigma_t V_t^\top, \qquad
    U = [U_1^{(q)} \dots U_T^{(q)}], \quad V = [V_1^{(q)} \dots V_T^{(q)}]

  .. math:: \tau = U_\perp \operatorname{diag}(\Sigma_1^{(q)}, \dots,
    \Sigma_T^{(q)}) V_\perp^\top, \qquad q = \lfloor \min(m, n) / T \rfloor,

  with :math:`U_\perp` the polar factor of U. Vectors are averaged.
  Scanned layers, experts and feature groups are merged matrix by matrix. A
  matrix and its transpose give the same merge.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    matrices: which leaves are matrices and which of their axes are batch, rows
      and columns: any of the forms of ``tree.views``.
    otherwise: as in ``iso_c``.

  Returns:
    The merged task vector, every leaf ``[...]``; the authors scale it by 1 in
    ``deltas.apply``, or choose the scale on validation data.

  Raises:
    ValueError: as ``tree.views``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> tasks = [[[2.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]]]
    >>> abs(tsv({'w': jnp.asarray(tasks)})['w']).round().tolist()
    [[2.0, 0.0], [0.0, 3.0]]

  Reference:
    Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model
    Merging", 2024, arXiv:2412.00081.

  Differs from the official code in two cases. Matrices with fewer rows or
  columns than tasks are averaged; that code keeps the base's. In task matrices
  of rank below q, the singular vectors of zero singular values, which are
  arbitrary, are left out; that code orthogonalises the others against them.

  The leading vectors of float32 leaves are eigenvectors of the smaller Gram
  matrix, refined by products in float64, so that close singular values add no
  error; steep spectra take eigenvectors in float64. Polar factors are computed
  as in ``iso_c``. The result is within 1e-5 of that in float64 where the joined
  vectors have condition numbers to about 1e3. TPUs have no float64 and take
  SVDs, float64 leaves as well.
  """
  return matrix.on_matrices(
    'tsv', _tsv, deltas, matrices, otherwise, wide='transpose'
  )


def _tsv(x: types.Array) -> types.Array:
  """Merges ``[T, B, m, n]`` from q singular triplets of each task."""
  kept = min(x.shape[2:]) // len(x)
  if not kept:
    return _linear.mean_leaf(x)
  u, core, v = tree.leading(x, kept)
  # The paper whitens the concatenated vectors, U (U^T U)^{-1/2}. With
  # U = P D Q^T this is P D Q^T Q D^{-1} Q^T = P Q^T, the polar factor: the
  # orthonormal matrix nearest to U: vectors of different tasks no longer
  # overlap. If the basis U_t of a task is turned to U_t R, so is its part of
  # the factor: no basis needs to be the singular vectors.
  left, right = columns.polar_factors(columns.join(u), columns.join(v))
  left = columns.join(tree.matmul(columns.separate(left, len(x)), core))
  return tree.matmul(left, jnp.matrix_transpose(right))
