"""The Pareto front of cost against score."""

import numpy as np
import pytest

from wsl import stitch


def brute_force(costs, scores):
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
def test_against_brute_force(seed):
  """Few distinct values give ties in cost, in score and in both."""
  draw = np.random.RandomState(seed)
  costs, scores = draw.randint(0, 6, (2, draw.randint(1, 30)))
  found = stitch.pareto(costs, scores)
  np.testing.assert_array_equal(found, brute_force(costs, scores))


def test_scores_rise_with_cost_along_the_front():
  draw = np.random.RandomState(0)
  costs, scores = draw.rand(2, 200)
  front = stitch.pareto(costs, scores)
  assert (np.diff(costs[front]) > 0).all()
  assert (np.diff(scores[front]) > 0).all()


def test_errors():
  with pytest.raises(ValueError, match=r'costs \[2\] and scores \[3\]'):
    stitch.pareto([1, 2], [1, 2, 3])
  with pytest.raises(ValueError, match='finite numbers'):
    stitch.pareto([1, 2], [1, np.nan])
