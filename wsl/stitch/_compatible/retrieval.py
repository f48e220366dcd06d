"""Retrieval across models: queries of one model, gallery of another.

``top1`` is the first point of the cumulative match characteristic (CMC), the
share of queries whose nearest gallery item has their label. ``map`` is the mean
over queries of the average precision, the mean of the precision at the ranks of
all relevant items.
"""

from collections.abc import Callable, Mapping
import functools
from types import MappingProxyType

import jax
import jax.numpy as jnp

from wsl import tree, types

_CHUNK = 64  # queries that are compared with the gallery at once

Labelled = tuple[types.ArrayLike, types.ArrayLike]


def retrieval(
  queries: Labelled,
  gallery: Labelled,
  *,
  metric: str = 'top1',
  ids: tuple[types.ArrayLike, types.ArrayLike] | None = None,
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
    ids: (of the queries ``[N]``, of the gallery ``[M]``), integers. A query
      does not retrieve the item of its own id: leave-one-out where the queries
      are part of the gallery, ``(range(N), range(N))`` where they are all of
      it. By default every item can be retrieved.

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
    >>> both = jnp.asarray([[1.0, 0.0], [1.0, 0.1], [1.0, 0.3]]), [0, 0, 1]
    >>> print(f'{retrieval(both, both, ids=(range(3), range(3))):.4f}')
    0.6667

  Differs from the code of openBCT and BT^2, which leaves out the query itself
  (see ``ids``) whenever the labels of queries and gallery are equal, omits
  queries without another item of their class from the mean, and ranks by
  distances or products of the features as given instead of their directions.
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
  own = None
  if ids is not None:
    own = jnp.asarray(ids[0]), jnp.asarray(ids[1])
    if (own[0].shape, own[1].shape) != (q_labels.shape, g_labels.shape):
      raise ValueError(
        f'retrieval: ids are {list(own[0].shape)} and {list(own[1].shape)}: '
        f'expected one for each of {len(q)} queries and {len(g)} items'
      )
  return _retrieval(q, q_labels, g, g_labels, own, metric)


@functools.partial(jax.jit, static_argnums=5)
def _retrieval(
  q: types.Array,
  q_labels: types.Array,
  g: types.Array,
  g_labels: types.Array,
  ids: tuple[types.Array, types.Array] | None,
  metric: str,
) -> types.Array:
  """Returns the mean of a metric over queries, a chunk of them at a time."""
  directions = tree.unit(g)

  def one(query: tuple[types.Array, ...]) -> types.Array:
    similarity = tree.matmul(directions, query[0])
    relevant = g_labels == query[1]
    if ids is not None:
      left_out = ids[1] == query[2]
      similarity = jnp.where(left_out, -jnp.inf, similarity)
      relevant &= ~left_out
    return _METRICS[metric](similarity, relevant)

  # A chunk of queries needs CHUNK x M similarities at a time, not N x M.
  own = () if ids is None else (ids[0],)
  found = jax.lax.map(one, (tree.unit(q), q_labels, *own), batch_size=_CHUNK)
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
