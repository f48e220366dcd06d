"""Compatibility of successive models: new queries in old galleries."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.stitch._compatible import retrieval


def compatibility_matrix(
  queries: Sequence[types.ArrayLike],
  galleries: Sequence[types.ArrayLike],
  query_labels: types.ArrayLike,
  gallery_labels: types.ArrayLike,
  *,
  metric: str = 'top1',
  leading: bool = False,
  ids: tuple[types.ArrayLike, types.ArrayLike] | None = None,
) -> np.ndarray:
  r"""Measures the retrieval of each model's queries in each model's gallery.

  .. math:: M_{ij} = \text{retrieval}(\text{queries}_i, \text{gallery}_j)

  With models in the order of their training, the entries below the diagonal
  pair new queries with old galleries, and the diagonal is the performance of
  each model on its own.

  Args:
    queries: for each of T models its features of the queries, ``[N, d_i]``.
    galleries: for each model its features of the gallery, ``[M, d_i]``.
    query_labels: ``[N]``, integers.
    gallery_labels: ``[M]``, integers.
    metric: as for ``retrieval``.
    leading: whether to compare models of different widths by their common
      leading entries, the layout of ``basis_transform``.
    ids: of queries and gallery, as for ``retrieval``.

  Returns:
    ``[T, T]``, float64 on the host.

  Raises:
    ValueError: if there are not as many galleries as queries, or the widths of
      two models differ and ``leading`` is false.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b, y = jnp.eye(2), jnp.eye(2)[::-1], jnp.arange(2)
    >>> compatibility_matrix([a, b], [a, b], y, y).tolist()
    [[1.0, 0.0], [0.0, 1.0]]

  Reference:
    Biondi et al., "CoReS: Compatible Representations via Stationarity", 2021,
    arXiv:2111.07632.

  With ``leading``, the common entries are compared by cosine, which divides by
  the norm of these entries. Differs from the official code of BT^2, which takes
  products of the leading entries as they are.
  """
  if len(queries) != len(galleries):
    raise ValueError(
      f'compatibility_matrix: queries of {len(queries)} models and galleries '
      f'of {len(galleries)}: give one of each for every model'
    )
  found = np.zeros((len(queries), len(queries)))
  for i, j in np.ndindex(*found.shape):
    q, g = jnp.asarray(queries[i]), jnp.asarray(galleries[j])
    if q.shape[1] != g.shape[1] and not leading:
      raise ValueError(
        f'compatibility_matrix: features of model {i} are {q.shape[1]} wide, '
        f'of model {j} {g.shape[1]}: pass leading=True if the leading entries '
        'of the wider mean the same'
      )
    width = min(q.shape[1], g.shape[1])
    found[i, j] = retrieval.retrieval(
      (q[:, :width], query_labels),
      (g[:, :width], gallery_labels),
      metric=metric,
      ids=ids,
    )
  return found


def average_compatibility(matrix: types.ArrayLike) -> float:
  r"""Returns the share of pairs in which new queries beat the old ones.

  .. math:: AC = \frac{2}{T (T - 1)} \sum_{i > j} [M_{ij} > M_{jj}]

  Args:
    matrix: ``[T, T]`` from ``compatibility_matrix``; only the lower triangle
      with the diagonal is used.

  Returns:
    0 .. 1, how often an update of the query model alone improves retrieval from
    the old gallery.

  Raises:
    ValueError: if the matrix is not square, or T < 2.

  Example:
    >>> average_compatibility([[0.5, 0, 0], [0.6, 0.7, 0], [0.4, 0.8, 0.9]])
    0.6666666666666666

  Reference:
    Biondi et al., "CoReS: Compatible Representations via Stationarity", 2021,
    arXiv:2111.07632.

  A tie M_ij = M_jj is not compatible, as in the formula and in the code of the
  d-Simplex with HOC (arXiv:2405.02581). Differs from other code of this metric,
  which counts ties as compatible.
  """
  found = np.asarray(matrix, np.float64)
  if found.ndim != 2 or found.shape[0] != found.shape[1] or len(found) < 2:
    raise ValueError(
      f'average_compatibility: the matrix is {list(found.shape)}, expected '
      '[T, T] of T >= 2 models'
    )
  # Row i > j: queries of the later model i, gallery of the earlier model j.
  new, old = np.tril_indices(len(found), -1)
  return float(np.mean(found[new, old] > found[old, old]))
