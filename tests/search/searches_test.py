"""Random search, CMA-ES, and the journal from which both resume."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from wsl import search

KEY = jax.random.key(0)
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]


def valley(points: np.ndarray) -> np.ndarray:
  """A rotated quadratic of condition number 100, with its minimum at 0.4."""
  return (((points - 0.4) @ ROTATION) ** 2 @ [1.0, 10.0, 100.0]) + 2.0


def evolve(loss: Any, **changes: Any) -> search.Search:
  arguments: dict[str, Any] = {'sigma': 0.3, 'evaluations': 600, 'key': KEY}
  return search.cmaes(loss, np.zeros(3), **(arguments | changes))


def test_cmaes_reaches_a_minimum() -> None:
  found = evolve(valley)
  np.testing.assert_allclose(found.point, 0.4, atol=1e-3)
  assert found.loss == found.losses.min() == valley(found.points).min()
  assert len(found.points) == 595  # whole generations of 7
  baseline = search.random_search(valley, 3, evaluations=595, key=KEY)
  assert found.loss - 2 < 1e-3 * (baseline.loss - 2)


def test_a_diagonal_covariance_serves_many_coordinates() -> None:
  # The full one would have 400 MB and take minutes.
  sphere = lambda x: (x**2).sum(1)
  found = search.cmaes(
    sphere, np.ones(7000), sigma=0.1, evaluations=300, population=30,
    diagonal=True, key=KEY,
  )  # fmt: skip
  assert found.losses[-30:].mean() < 0.999 * found.losses[:30].mean()


def test_cmaes_keeps_points_in_the_box() -> None:
  found = evolve(valley, lower=[-1, -1, -1], upper=[1, 0.1, 1])
  assert found.points.max(0)[1] <= 0.1
  assert found.points.min() >= -1
  assert found.point[1] == pytest.approx(0.1, abs=1e-2)


def test_cmaes_is_a_function_of_its_key() -> None:
  before = np.random.get_state()[1].copy()
  a, b = (evolve(valley, evaluations=14) for _ in range(2))
  np.testing.assert_array_equal(a.points, b.points)
  other = evolve(valley, evaluations=14, key=jax.random.key(1))
  assert not np.array_equal(a.points, other.points)
  np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_failures_are_recorded_and_rank_last() -> None:
  fails = lambda x: np.where(x[:, 0] < 0.2, np.nan, valley(x))
  found = evolve(fails)
  assert np.isnan(found.losses).sum() > 3
  np.testing.assert_allclose(found.point, 0.4, atol=1e-2)
  with pytest.raises(FloatingPointError, match='at none of 7 points'):
    evolve(lambda x: np.full(len(x), np.nan), evaluations=7)


def test_random_search_asks_in_batches() -> None:
  sizes = []

  def loss(points: np.ndarray) -> np.ndarray:
    sizes.append(len(points))
    return points.sum(1)

  low, high = np.array([-1.0, 2.0]), np.array([0.0, 3.0])
  found = search.random_search(
    loss, 2, lower=low, upper=high, evaluations=1000, batch=300, key=KEY
  )
  assert sizes == [300, 300, 300, 100]
  assert ((low <= found.points) & (found.points <= high)).all()
  # The mean of 1000 uniform numbers has a deviation of 0.009.
  np.testing.assert_allclose(found.points.mean(0), [-0.5, 2.5], atol=0.03)
  assert found.loss == found.points.sum(1).min() == found.point.sum()


@pytest.mark.parametrize('stop', [1, 2, 40])
def test_an_interrupted_search_resumes(
  stop: int, tmp_path: pathlib.Path
) -> None:
  whole = evolve(valley, evaluations=70)
  calls = []

  def interrupted(points: np.ndarray) -> np.ndarray:
    if len(calls) == stop:
      raise KeyboardInterrupt
    calls.append(len(points))
    return valley(points)

  path = tmp_path / 'search.jsonl'
  if stop < 10:
    with pytest.raises(KeyboardInterrupt):
      evolve(search.journal(interrupted, path), evaluations=70)
    path.write_text(path.read_text() + '{"point": [0.1, ')  # killed in a write
  calls.clear()
  stop = 40
  resumed = evolve(search.journal(interrupted, path), evaluations=70)
  np.testing.assert_array_equal(resumed.points, whole.points)
  np.testing.assert_array_equal(resumed.losses, whole.losses)
  assert sum(calls) == 70 - 7 * (10 - len(calls))
  assert len(path.read_text().splitlines()) == 70


def test_a_journal_continues_inside_a_batch(tmp_path: pathlib.Path) -> None:
  path, points = tmp_path / 'search.jsonl', np.arange(8.0).reshape(4, 2)
  two = lambda x: np.stack([x[:, 0], np.full(len(x), np.nan)], axis=1)
  search.journal(two, path)(points[:3])
  sizes: list[int] = []
  count = lambda x: (sizes.append(len(x)), two(x))[1]
  found = search.journal(count, path)(points)
  np.testing.assert_array_equal(found, two(points))
  assert sizes == [1]


def test_a_journal_of_another_search_is_refused(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'search.jsonl'
  search.journal(valley, path)(np.zeros((2, 3)))
  with pytest.raises(ValueError, match='holds another search: its point 1 is'):
    search.journal(valley, path)(np.array([[0.0, 0, 0], [0, 0, 1]]))
  path.write_text('[1, 2]\n')
  with pytest.raises(ValueError, match=r'line 1 of .* is not an evaluation'):
    search.journal(valley, path)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'sigma': 0.0}, 'sigma=0.0 is not a finite number > 0'),
    ({'evaluations': 3}, 'evaluations=3 is not a whole number >= 7'),
    ({'population': 1}, 'population=1 is not a whole number >= 2'),
    ({'upper': -1.0}, 'start is outside of lower .. upper'),
    ({'lower': 1.0, 'upper': 1.0}, 'lower=1.0 is not below upper=1.0'),
    ({'lower': [0.0, 1.0]}, r'lower has shape \(2,\): give one number, or'),
  ],
)
def test_arguments_of_cmaes_are_checked(changes: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    evolve(valley, **changes)


def test_a_loss_of_the_wrong_shape_is_refused() -> None:
  with pytest.raises(ValueError, match=r'loss returned shape \(\) for 7'):
    evolve(lambda x: 1.0)
  with pytest.raises(ValueError, match='lower and upper must be finite'):
    search.random_search(valley, 3, upper=np.inf, evaluations=3, key=KEY)


def test_layerwise_starts_at_the_mean_and_finds_planted_layers() -> None:
  wanted = np.asarray([[0.1, 0.9], [0.7, 0.3]])
  kept = np.asarray([[0.5, 1.0], [0.8, 0.6]])
  seen = []

  def loss(weights: Any, density: Any) -> Any:
    seen.append((weights, density))
    assert density.min() > 0
    assert density.max() <= 1
    square = lambda x, y: ((x - y) ** 2).sum((1, 2))
    return square(weights, wanted) + square(density, kept)

  found = search.layerwise(loss, 2, 2, evaluations=1500, key=jax.random.key(0))
  assert abs(found.weights - wanted).max() < 0.05
  assert abs(found.density - kept).max() < 0.05
  assert abs(seen[0][0].mean() - 0.5) < 0.2
  assert found.loss == found.search.loss < 0.01
