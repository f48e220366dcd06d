"""Pareto fronts: dominance, volumes, surrogates, and MAP on planted losses."""

from typing import Any

import jax
import numpy as np
import pytest

from wsl import search

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)


def test_dominance_is_the_definition() -> None:
  losses = RANDOM.integers(0, 4, (60, 3)).astype(float)
  losses[5, 1] = np.nan
  wanted = []
  for x in losses:
    beaten = [(y <= x).all() and (y < x).any() for y in losses]
    wanted.append(not any(beaten) and not np.isnan(x).any())
  assert search.non_dominated(losses).tolist() == wanted


def test_volumes() -> None:
  # Two boxes of 2 x 1 x 1 and 1 x 2 x 1 that share 1 x 1 x 1.
  points = [[0.0, 1, 1], [1.0, 0, 1], [3.0, 0, 0], [np.nan, 0, 0]]
  assert search.hypervolume(points, reference=[2, 2, 2]) == 3.0
  assert search.hypervolume(points, reference=[0, 0, 0]) == 0.0
  with pytest.raises(ValueError, match=r'reference has shape \(2,\)'):
    search.hypervolume(points, reference=[2, 2])


@pytest.mark.parametrize('link', ['identity', 'sigmoid', 'softplus'])
def test_a_surrogate_of_its_own_form_is_exact(link: Any) -> None:
  weights = RANDOM.normal(size=(10, 2))  # three coefficients
  planted = search.Surrogate(weights, link)
  points = RANDOM.uniform(0, 1, (10, 3))
  found = search.fit_surrogate(points, planted(points), link=link)
  other = RANDOM.uniform(-1, 2, (50, 3))
  np.testing.assert_allclose(found(other), planted(other), atol=1e-6)
  x = other[0]
  quadratic = weights[[0, 1, 2, 4, 5, 7], 0] @ [
    x[0] ** 2, x[0] * x[1], x[0] * x[2], x[1] ** 2, x[1] * x[2], x[2] ** 2
  ] + weights[[3, 6, 8, 9], 0] @ [*x, 1.0]  # fmt: skip
  links = {
    'identity': quadratic,
    'sigmoid': 1 / (1 + np.exp(-quadratic)),
    'softplus': np.log1p(np.exp(quadratic)),
  }
  assert planted(other)[0, 0] == pytest.approx(links[link], rel=1e-12)


def distances(points: np.ndarray) -> np.ndarray:
  """Two losses whose front is the line between (1, 0, 0) and (0, 1, 0)."""
  return np.stack([((points - np.eye(3)[i]) ** 2).sum(1) for i in (0, 1)], 1)


def test_the_front_of_planted_losses() -> None:
  calls = []

  def losses(points: np.ndarray) -> np.ndarray:
    calls.append(len(points))
    found = distances(points)
    found[5] = np.nan  # a failed evaluation
    return found

  front = search.map_front(losses, 3, key=KEY)
  assert calls == [20]
  np.testing.assert_allclose(front.samples[:3], np.eye(3))
  assert np.isnan(front.sampled[5]).all()
  assert len(front.points) > 50
  assert ((front.points >= 0) & (front.points <= 1)).all()
  np.testing.assert_allclose(front.losses, distances(front.points), atol=1e-9)
  assert (np.diff(front.losses[:, 0]) >= 0).all()
  assert search.non_dominated(front.losses).all()
  # sqrt(l_1) + sqrt(l_2) = sqrt(2) on the front, and more off it. The volume
  # below it: the integral of (sqrt(2) - sqrt(x))^2 from 0 to 2 is 2/3.
  excess = np.sqrt(front.losses.clip(0)).sum(1) - 2**0.5
  assert excess.max() < 0.05
  volume = search.hypervolume(front.losses, reference=[2, 2])
  assert 0.97 * (4 - 2 / 3) < volume < 4 - 2 / 3
  for sample in front.sampled[~np.isnan(front.sampled).any(1)]:
    assert (front.losses <= sample + 1e-9).all(1).any()


def test_wrong_arguments_are_named() -> None:
  with pytest.raises(ValueError, match='evaluations=9 is not a whole number'):
    search.map_front(distances, 3, evaluations=9, key=KEY)
  with pytest.raises(ValueError, match='two losses or more'):
    search.map_front(lambda x: distances(x)[:, :1], 3, key=KEY)
  with pytest.raises(ValueError, match='9 points for 10 unknowns'):
    search.fit_surrogate(RANDOM.uniform(size=(9, 3)), np.ones((9, 2)))
  with pytest.raises(ValueError, match=r"in \[0, 1\] with link='sigmoid'"):
    search.fit_surrogate(np.ones((9, 1)), 2 * np.ones((9, 2)), link='sigmoid')
