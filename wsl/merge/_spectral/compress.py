"""TSV-Compress: each task vector from its leading singular triplets."""

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._spectral import low_rank, matrix


@deltas_lib.on_stacks
def tsv_compress(
  deltas: types.Deltas,
  *,
  kept: float | None = None,
  form: str = 'dense',
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Deltas:
  r"""Approximates the matrices of each task by q singular triplets.

  .. math:: \hat\tau_t = U_t^{(q)} \Sigma_t^{(q)} V_t^{(q)\top}, \qquad
    q = \lfloor \min(m, n) / T \rfloor,

  the best approximation of rank q. Vectors are kept. The factors of T square
  matrices of n columns have T q (2 n) = 2 n^2 entries, twice those of one.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    kept: the fraction of singular triplets that is kept, 0 .. 1; 1 / T by
      default. It sets shapes, so it is not traced. At least one is kept.
    form: ``'dense'``, or ``'factors'``: matrices as ``deltas.Factors`` of
      all tasks, from which ``materialize(family, task)`` computes one.
    matrices: which leaves are matrices, as in ``tsv``.
    otherwise: as in ``iso_c``; ``'mean'`` keeps such leaves.

  Returns:
    The task vectors, every leaf ``[T, ...]``, or their factors.

  Raises:
    ValueError: if ``kept`` is out of range or traced, ``form`` is unknown, or
      as ``tree.views``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> tasks = [[[2.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]]]
    >>> found = tsv_compress({'w': jnp.asarray(tasks)})['w']
    >>> abs(found).round().tolist()
    [[[2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]]

  Reference:
    Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model
    Merging", 2024, arXiv:2412.00081.

  Differs from the official code for matrices with fewer rows or columns than
  tasks, of which it keeps no triplet, and where ``min(m, n) * (1 / T)`` rounds
  down.

  float32 leaves are decomposed as in ``tsv``, with the same error.
  """
  models = _stack.count('tsv_compress', deltas)
  if kept is not None:
    tree.check_scalars('tsv_compress', kept=kept)
    if isinstance(kept, jax.core.Tracer):
      raise ValueError(
        'tsv_compress: kept is traced, and sets shapes: give a number that is '
        'known'
      )
    meaning = 'the fraction of singular triplets'
    _checks.fraction('tsv_compress', 'kept', kept, meaning, positive=True)
  share = 1 / models if kept is None else float(kept)
  forms = {'dense': False, 'factors': True}
  if _checks.choose('tsv_compress: form', form, forms):
    return low_rank.factor(
      'tsv_compress', deltas, share, None, matrices, otherwise
    )
  return matrix.on_matrices(
    'tsv_compress',
    _compress,
    deltas,
    matrices,
    otherwise,
    wide='transpose',
    vectors=None,
    share=tree.Static(share),
  )


def _compress(x: types.Array, *, share: float) -> types.Array:
  """Approximates ``[T, B, m, n]`` by the leading subspaces of each matrix."""
  rank = low_rank.rank_of(share, x.shape)
  u, core, v = tree.leading(x, rank)
  return tree.matmul(tree.matmul(u, core), jnp.matrix_transpose(v))
