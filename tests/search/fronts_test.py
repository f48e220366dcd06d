"""Pareto fronts: dominance, volumes, surrogates, and MAP on planted losses."""

from typing import Any

import jax
import numpy as np
import pytest

from wsl import search
from wsl.search._fronts import adaptive

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


def test_adaptive_samples_are_drawn_where_the_fit_is_bad() -> None:
  # The first loss has a cusp near the first axis, the second is quadratic.
  def losses(points: np.ndarray) -> np.ndarray:
    angle = np.arctan2(points[:, 1], points[:, 0])
    cusp = 40 * np.maximum(0, 0.35 - angle) + points.sum(1)
    return np.stack([cusp, (points**2).sum(1)], axis=1)

  sizes = []
  count = lambda x: (sizes.append(len(x)), losses(x))[1]
  front = search.map_front(count, 2, adaptive=(24, 24), generations=2, key=KEY)
  assert sizes == [12, 24, 24]
  assert front.samples.shape == (60, 2)
  np.testing.assert_array_equal(losses(front.samples), front.sampled)
  new = front.samples[12:]
  radius = np.linalg.norm(new, axis=1)
  assert ((radius >= 0.2) & (radius <= 0.8)).all()
  # Every second sample is for the first loss: near its cusp, and in the first
  # of four sectors once that has samples.
  sector = np.arctan2(new[:, 1], new[:, 0]) // (np.pi / 8)
  assert (sector[::2] <= 1).mean() > 0.8
  assert (sector[24::2] == 0).mean() > 0.8
  assert set(sector[1::2]) == {0, 1, 2, 3}
  # The surrogate has all samples.
  fit = search.fit_surrogate(front.samples, front.sampled)
  np.testing.assert_allclose(front.surrogate.weights, fit.weights)


@pytest.mark.parametrize('size', [2, 3, 5])
def test_angles_and_directions_are_inverses(size: int) -> None:
  x = RANDOM.uniform(0, 1, (6, size))
  angles = adaptive._angles(x)
  assert ((angles >= 0) & (angles <= np.pi / 2)).all()
  radius = np.linalg.norm(x, axis=1, keepdims=True)
  found = np.stack([adaptive._direction(row) for row in angles])
  np.testing.assert_allclose(found * radius, x, atol=1e-12)


def test_nested_merges_reach_the_preferred_point() -> None:
  # Expert 0 harms task 3. Experts 1 and 2 have the closest losses, 3 the last.
  distance = np.array([0.3, 0.1, 0.11, 0.5])
  calls = []

  def losses(points: np.ndarray) -> np.ndarray:
    calls.append(len(points))
    found = (points - 1) ** 2 + distance
    found[:, 3] += points[:, 0]
    return found

  preferences = np.array([1.0, 1, 1, 3])
  found = search.map_nested(losses, 4, preferences=preferences, key=KEY)
  assert found.pairs[0] == ((1,), (2,))
  groups = [set(a) | set(b) for a, b in found.pairs]
  assert groups[-1] == {0, 1, 2, 3}
  assert found.evaluations == sum(calls) == 4 + 3 * 21
  assert calls == [4, 20, 1, 20, 1, 20, 1]
  np.testing.assert_allclose(found.losses, losses(found.point[None])[0])
  # Experts 0, 1 and 2 share a coefficient when 3 joins them, that of least
  # 3 (1 - a)^2 + p a for the preference p of task 3.
  np.testing.assert_allclose(found.point, [0.5, 0.5, 0.5, 1], atol=0.03)
  equal = search.map_nested(losses, 4, key=KEY)
  np.testing.assert_allclose(equal.point, [5 / 6, 5 / 6, 5 / 6, 1], atol=0.03)


def test_wrong_arguments_are_named() -> None:
  with pytest.raises(ValueError, match='need two coefficients or more'):
    search.map_front(distances, 1, adaptive=(3,), key=KEY)
  with pytest.raises(ValueError, match=r'preferences=\[1.0, 0.0\]: give a'):
    search.map_nested(distances, 2, preferences=[1.0, 0.0], key=KEY)
  with pytest.raises(ValueError, match='returned 2 columns for 3 experts'):
    search.map_nested(distances, 3, key=KEY)
  with pytest.raises(ValueError, match='evaluations=9 is not a whole number'):
    search.map_front(distances, 3, evaluations=9, key=KEY)
  with pytest.raises(ValueError, match='two losses or more'):
    search.map_front(lambda x: distances(x)[:, :1], 3, key=KEY)
  with pytest.raises(ValueError, match='9 points for 10 unknowns'):
    search.fit_surrogate(RANDOM.uniform(size=(9, 3)), np.ones((9, 2)))
  with pytest.raises(ValueError, match=r"in \[0, 1\] with link='sigmoid'"):
    search.fit_surrogate(np.ones((9, 1)), 2 * np.ones((9, 2)), link='sigmoid')
