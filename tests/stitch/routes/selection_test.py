"""Selection of stitches by similarity, and the Pareto front of routes."""

import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stats, stitch

ROUTES = stitch.sn_net_routes({'s': 4, 'm': 4}, window=1)
SCORES = [0.0, 0.0, 0.1, 0.9, 0.5, 0.3]


def kept(routes):
  return [route.adapters[0] for route in routes if route.adapters]


@pytest.mark.parametrize(
  ('count', 'want'), [(0, []), (1, [1]), (2, [1, 2]), (4, [0, 1, 2, 3])]
)
def test_the_best_stitches_and_all_anchors_are_kept(count, want):
  found = stitch.select_routes(ROUTES, SCORES, count=count)
  assert found[:2] == ROUTES[:2]
  assert kept(found) == [f's_m_{i}' for i in want]


def test_the_best_of_each_cost_group_is_kept():
  costs = [0, 9, 8, 6, 4, 2]  # the cheapest two are 2 and 3
  found = stitch.select_routes(ROUTES, SCORES, count=2, flops=costs)
  assert kept(found) == ['s_m_1', 's_m_2']
  costs = [0, 9, 2, 4, 6, 8]
  found = stitch.select_routes(ROUTES, SCORES, count=2, flops=costs)
  assert kept(found) == ['s_m_1', 's_m_2']
  found = stitch.select_routes(ROUTES, SCORES, count=3, flops=costs)
  assert kept(found) == ['s_m_1', 's_m_2', 's_m_3']


def test_the_similarity_of_a_route_is_that_of_its_worst_joint():
  rng = np.random.default_rng(0)
  source, noise = (jnp.asarray(rng.normal(size=(64, 3))) for _ in range(2))
  routes = stitch.sn_net_v2_routes({'s': 2, 'l': 2})
  mixed = {
    joint: stats.cross_moments(
      lambda x: [x],
      lambda x, rate=rate: [x + rate * noise],
      [source],
    )[0, 0]
    for joint, rate in zip(
      dict.fromkeys(j for r in routes for j in stitch.joints(r)),
      (0.0, 0.5, 2.0),
      strict=True,
    )
  }
  scores = stitch.route_similarity(mixed, routes, measure=stats.cka)
  by_joint = {joint: float(stats.cka(m)) for joint, m in mixed.items()}
  assert list(by_joint.values()) == sorted(by_joint.values(), reverse=True)
  for route, score in zip(routes, scores, strict=True):
    want = min((by_joint[j] for j in stitch.joints(route)), default=np.inf)
    assert score == want


def test_errors_of_select_routes():
  with pytest.raises(ValueError, match=r'scores \[2\], flops \[2\]: expected'):
    stitch.select_routes(ROUTES, [1.0, 2.0], count=1)
  with pytest.raises(ValueError, match=r'count=5: expected 0 \.\. 4'):
    stitch.select_routes(ROUTES, SCORES, count=5)


def front_by_definition(costs, scores):
  """Returns the non-dominated networks, by definition."""
  n = range(len(costs))
  front = [
    i
    for i in n
    if not any(
      costs[j] <= costs[i]
      and scores[j] >= scores[i]
      and (costs[j], scores[j]) != (costs[i], scores[i])
      for j in n
    )
  ]
  return sorted(front, key=lambda i: (costs[i], i))


@pytest.mark.parametrize('seed', range(20))
def test_the_front_equals_its_definition(seed):
  """Few distinct values give ties in cost, in score and in both."""
  draw = np.random.RandomState(seed)
  costs, scores = draw.randint(0, 6, (2, draw.randint(1, 30)))
  found = stitch.pareto(costs, scores)
  np.testing.assert_array_equal(found, front_by_definition(costs, scores))


def test_scores_rise_with_cost_along_the_front():
  draw = np.random.RandomState(0)
  costs, scores = draw.rand(2, 200)
  front = stitch.pareto(costs, scores)
  assert (np.diff(costs[front]) > 0).all()
  assert (np.diff(scores[front]) > 0).all()


def test_errors_of_pareto():
  with pytest.raises(ValueError, match=r'costs \[2\] and scores \[3\]'):
    stitch.pareto([1, 2], [1, 2, 3])
  with pytest.raises(ValueError, match='finite numbers'):
    stitch.pareto([1, 2], [1, np.nan])
