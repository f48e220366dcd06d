"""TSV-Compress: each task vector from its leading singular triplets."""

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._spectral import matrix


def tsv_compress(
  deltas: types.Deltas,
  *,
  kept: float | None = None,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Deltas:
  r"""Approximates the matrices of each task by q singular triplets.

  .. math:: \hat\tau_t = U_t^{(q)} \Sigma_t^{(q)} V_t^{(q)\top}, \qquad
    q = \lfloor \min(m, n) / T \rfloor,

  the best approximation of rank q. Vectors are kept. The factors of T tasks
  need about as much memory as one model.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    kept: the fraction of singular triplets that is kept, 0 .. 1; 1 / T by
      default. It sets shapes, so it is not traced. At least one is kept.
    matrices: which leaves are matrices, as in ``tsv``.
    otherwise: as in ``iso_c``; ``'mean'`` keeps such leaves.

  Returns:
    The task vectors, every leaf ``[T, ...]``, dense: ``adapters.extract`` gives
    factors of one of them.

  Raises:
    ValueError: if ``kept`` is out of range or traced, or as ``tree.views``,
      naming the leaf.

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
  share = tree.Static(1 / models if kept is None else float(kept))
  return matrix.on_matrices(
    'tsv_compress',
    _compress,
    deltas,
    matrices,
    otherwise,
    wide='transpose',
    vectors=None,
    share=share,
  )


def _compress(x: types.Array, *, share: float) -> types.Array:
  """Approximates ``[T, B, m, n]`` by the leading subspaces of each matrix."""
  # 1e-9: such as (1 / 3) * 9, which may round down.
  rank = max(int(share * min(x.shape[-2:]) + 1e-9), 1)
  u, core, v = tree.leading(x, rank)
  return tree.matmul(tree.matmul(u, core), jnp.matrix_transpose(v))
