"""Retrieval across models: queries of one model, gallery of another.

``top1`` is the first point of the cumulative match characteristic (CMC), the
share of queries whose nearest gallery item has their label. ``map`` is the mean
over queries of the average precision, the mean of the precision at the ranks of
all relevant items.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types

_CHUNK = 64  # queries that are compared with the gallery at once

Labelled = tuple[types.ArrayLike, types.ArrayLike]


def retrieval(
  queries: Labelled, gallery: Labelled, *, metric: str = 'top1'
) -> types.Array:
  r"""Measures the retrieval of gallery items of the query's class, by cosine.

  .. math:: \text{top1} = \frac{1}{N} \sum_q
    [y_{\arg\max_g \cos(q, g)} = y_q], \quad
    \text{map} = \frac{1}{N} \sum_q \frac{1}{R_q} \sum_{r: y_r = y_q}
    \frac{\#\{s \le r: y_s = y_q\}}{r}

  where r and s are ranks in the gallery sorted by the similarity to q, and R_q
  is the number of gallery items of q's class.

  Args:
    queries: (features ``[N, d]``, labels ``[N]``).
    gallery: (features ``[M, d]``, labels ``[M]``), of the same width d.
    metric: ``'top1'``, the share of queries whose nearest item has their label
      (CMC at rank 1); or ``'map'``, the mean average precision.

  Returns:
    ``[]``, 0 .. 1. A query whose class is not in the gallery counts 0. Equal
    similarities are ranked in the order of the gallery.

  Raises:
    ValueError: if widths or lengths differ, or the metric is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> gallery = jnp.eye(2), jnp.asarray([0, 1])
    >>> queries = jnp.asarray([[2.0, 1.0], [3.0, 0.0]]), jnp.asarray([0, 1])
    >>> float(retrieval(queries, gallery)), float(
    ...   retrieval(queries, gallery, metric='map'))
    (0.5, 0.75)
  """
  if metric not in _METRICS:
    hint = tree.nearest(metric, list(_METRICS))
    raise ValueError(
      f"retrieval: no metric '{metric}'{hint}: there are {', '.join(_METRICS)}"
    )
  q, g = tree.widen(queries[0], gallery[0])
  q_labels, g_labels = jnp.asarray(queries[1]), jnp.asarray(gallery[1])
  for name, x, y in (('queries', q, q_labels), ('gallery', g, g_labels)):
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(x):
      raise ValueError(
        f'retrieval: {name} are {list(x.shape)} with labels {list(y.shape)}, '
        'expected [N, d] and [N] with N >= 1'
      )
  if q.shape[1] != g.shape[1]:
    raise ValueError(
      f'retrieval: queries are {q.shape[1]} wide and the gallery '
      f'{g.shape[1]}: give the part of the features that both have in common'
    )
  return _retrieval(q, q_labels, g, g_labels, metric)


@functools.partial(jax.jit, static_argnums=4)
def _retrieval(
  q: types.Array,
  q_labels: types.Array,
  g: types.Array,
  g_labels: types.Array,
  metric: str,
) -> types.Array:
  """Returns the mean of a metric over queries, a chunk of them at a time."""
  directions = tree.unit(g)

  def one(query: tuple[types.Array, types.Array]) -> types.Array:
    similarity = tree.matmul(directions, query[0])
    return _METRICS[metric](similarity, g_labels == query[1])

  # A chunk of queries needs CHUNK x M similarities at a time, not N x M.
  found = jax.lax.map(one, (tree.unit(q), q_labels), batch_size=_CHUNK)
  return jnp.mean(found)


def _top1(similarity: types.Array, relevant: types.Array) -> types.Array:
  """Returns whether the nearest item is relevant, 0 or 1."""
  return jnp.asarray(relevant[jnp.argmax(similarity)], similarity.dtype)


def _average_precision(
  similarity: types.Array, relevant: types.Array
) -> types.Array:
  """Returns the mean precision at the ranks of the relevant items."""
  # The precision at rank r is cumsum(relevant)[r] / r; the factor `ranked`
  # selects the ranks of relevant items. argsort is stable.
  ranked = jnp.asarray(relevant[jnp.argsort(-similarity)], similarity.dtype)
  ranks = jnp.arange(1, len(similarity) + 1, dtype=similarity.dtype)
  total = jnp.sum(ranked * jnp.cumsum(ranked) / ranks)
  return total / jnp.maximum(jnp.sum(ranked), 1)


_METRICS: Mapping[str, Callable[[types.Array, types.Array], types.Array]] = (
  MappingProxyType({'top1': _top1, 'map': _average_precision})
)


def compatibility_matrix(
  queries: Sequence[types.ArrayLike],
  galleries: Sequence[types.ArrayLike],
  query_labels: types.ArrayLike,
  gallery_labels: types.ArrayLike,
  *,
  metric: str = 'top1',
  leading: bool = False,
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
    found[i, j] = retrieval(
      (q[:, :width], query_labels),
      (g[:, :width], gallery_labels),
      metric=metric,
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
