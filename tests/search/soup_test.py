"""Greedy soups: literal members, ties, and the promise of the score."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from wsl import search, tree


def models(*values: float) -> list[Any]:
  return [{'w': np.full(2, x, np.float32)} for x in values]


def near(target: float) -> Any:
  return lambda params: -abs(float(tree.read(params)['w'][0]) - target)


def test_members_are_added_while_the_score_does_not_fall() -> None:
  # Order by score: 3, 4.5, 0, -1, 9. With 3: 4.5 gives 3.75, worse; 0 gives
  # 1.5, as far from 2.25 as 3; then -1 gives 2/3, worse; 9 gives 4, worse.
  found = search.greedy_soup(near(2.25), models(4.5, 3, 0, 9, -1))
  assert found.members == [1, 2]
  assert found.params['w'].tolist() == [1.5, 1.5]
  assert found.score == -0.75
  assert found.scores == [-2.25, -0.75, -2.25, -6.75, -3.25]
  assert found.evaluations == 9
  strict = search.greedy_soup(
    near(2.25), models(4.5, 3, 0, 9, -1), dialect='official'
  )
  assert strict.members == [1]


def test_a_constant_score_gives_the_uniform_soup_or_the_first() -> None:
  x = models(1, 2, 6)
  found = search.greedy_soup(lambda params: 1.0, x)
  assert found.params['w'].tolist() == [3.0, 3.0]
  found = search.greedy_soup(lambda params: 1.0, x, dialect='official')
  assert found.members == [0]


def test_the_soup_is_at_least_as_good_as_the_best_model() -> None:
  random = np.random.default_rng(0)
  for _ in range(30):
    x = models(*random.normal(size=6))
    found = search.greedy_soup(near(float(random.normal())), x)
    assert found.score >= max(found.scores)
    mean = np.mean([x[i]['w'] for i in found.members], axis=0)
    np.testing.assert_allclose(found.params['w'], mean, rtol=1e-6, atol=1e-7)


def test_models_on_demand_stay_on_demand() -> None:
  x = [tree.map(lambda x: x, m) for m in models(1, 3)]
  lazy = [{'w': tree.defer(jnp.asarray(m['w']))} for m in x]
  found = search.greedy_soup(near(2), lazy)
  assert tree.on_demand(found.params['w'])
  assert tree.read(found.params)['w'].tolist() == [2.0, 2.0]


def test_wrong_arguments_are_named() -> None:
  with pytest.raises(ValueError, match='no models given'):
    search.greedy_soup(near(0), [])
  with pytest.raises(FloatingPointError, match=r'score of models\[0\] is NaN'):
    search.greedy_soup(near(float('nan')), models(1, 2))
  with pytest.raises(ValueError, match="leaf 'w' has shape"):
    search.greedy_soup(near(0), [*models(1), {'w': np.ones(3, np.float32)}])
  with pytest.raises(ValueError, match="dialect='code' is neither"):
    search.greedy_soup(near(0), models(1), dialect='code')  # type: ignore
