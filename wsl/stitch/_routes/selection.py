"""Selects routes: by similarity before training, by score and cost after it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from wsl import types
from wsl.stitch._routes import joints, routing


def route_similarity(
  moments: Mapping[joints.Joint, types.CrossMoments],
  routes: Sequence[routing.Route],
  *,
  measure: Callable[[types.CrossMoments], types.Array],
) -> np.ndarray:
  r"""Scores routes by the similarity of the features at their joints.

  .. math:: s_r = \min_{i \in \mathrm{joints}(r)} \mathrm{sim}(X_i, Y_i)

  Args:
    moments: of each joint, from ``joint_moments``.
    routes: routes of one family.
    measure: a similarity of two sets of features, larger for more similar
      ones: ``stats.cka``, or ``lambda m: 1 - stats.residual(m)``.

  Returns:
    Scores ``[R]``; ``inf`` for a route without a stitch.

  Reference:
    The measures are those of Kornblith et al., "Similarity of Neural Network
    Representations Revisited", 2019, arXiv:1905.00414.
  """
  found = {joint: float(measure(m)) for joint, m in moments.items()}
  worst = lambda route: min(
    (found[joint] for joint in joints.joints(route)), default=np.inf
  )
  return np.asarray([worst(route) for route in routes])


def select_routes(
  routes: Sequence[routing.Route],
  scores: types.ArrayLike,
  *,
  count: int,
  flops: types.ArrayLike | None = None,
) -> tuple[routing.Route, ...]:
  """Selects the stitches of a family with the highest scores, and all anchors.

  With ``flops``, the stitches are sorted by cost and split into ``count``
  groups of nearly equal size, and the best of each group is kept, so that the
  selection covers the range of costs. Without, the ``count`` best are kept.

  Args:
    routes: routes of one family.
    scores: of each route, ``[R]``, for example from ``route_similarity``; the
      scores of anchors are ignored.
    count: number of stitches to keep.
    flops: of each route, ``[R]``.

  Returns:
    The selected routes, in the given order.

  Raises:
    ValueError: if there are fewer than ``count`` stitches, or the numbers of
      routes, scores and costs differ.

  Example:
    >>> from wsl import stitch
    >>> routes = stitch.sn_net_routes({'s': 2, 'm': 2}, window=1)
    >>> kept = select_routes(routes, [0.0, 0.0, 0.3, 0.9], count=1)
    >>> [route.adapters for route in kept]
    [(), (), ('s_m_1',)]
  """
  s = np.asarray(scores, np.float64)
  stitched = np.asarray([i for i, r in enumerate(routes) if r.adapters], int)
  costs = s if flops is None else np.asarray(flops, np.float64)
  if s.shape != (len(routes),) or costs.shape != s.shape:
    raise ValueError(
      f'select_routes: scores {list(s.shape)}, flops {list(costs.shape)}: '
      f'expected one for each of {len(routes)} routes'
    )
  if not 0 <= count <= len(stitched):
    raise ValueError(
      f'select_routes: count={count}: expected 0 .. {len(stitched)}, the '
      'number of routes with a stitch'
    )
  if flops is None:
    kept = stitched[np.argsort(-s[stitched], kind='stable')[:count]]
  else:
    by_cost = stitched[np.argsort(costs[stitched], kind='stable')]
    groups = np.array_split(by_cost, count) if count else []
    kept = np.asarray([group[np.argmax(s[group])] for group in groups], int)
  keep = {*kept.tolist()}
  return tuple(
    route for i, route in enumerate(routes) if i in keep or not route.adapters
  )


def pareto(costs: types.ArrayLike, scores: types.ArrayLike) -> np.ndarray:
  r"""Finds the Pareto front of cost against score.

  .. math:: \{i : \nexists j \;\; c_j \le c_i, \; s_j \ge s_i,
    \; (c_j, s_j) \ne (c_i, s_i)\}

  Args:
    costs: of each network, ``[R]``: FLOPs, parameters, seconds.
    scores: of each network, ``[R]``; higher is better.

  Returns:
    Indices of the networks on the front, by rising cost, ``[F]``. Networks with
    equal cost and equal score are included together.

  Raises:
    ValueError: if the two differ in length, or one is not a number.

  Example:
    >>> pareto([1.0, 2.0, 3.0, 4.0], [0.5, 0.8, 0.7, 0.9]).tolist()
    [0, 1, 3]
  """
  c, s = np.asarray(costs, np.float64), np.asarray(scores, np.float64)
  if c.ndim != 1 or c.shape != s.shape or not np.isfinite(c + s).all():
    raise ValueError(
      f'pareto: costs {list(c.shape)} and scores {list(s.shape)}: expected two '
      'lists of equal length, of finite numbers'
    )
  # [i, j]: j is better in one of the two and at least as good in the other.
  scores_more = (c[None, :] <= c[:, None]) & (s[None, :] > s[:, None])
  costs_less = (c[None, :] < c[:, None]) & (s[None, :] >= s[:, None])
  front = np.flatnonzero(~(scores_more | costs_less).any(1))
  return front[np.argsort(c[front], kind='stable')]
