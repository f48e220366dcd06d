"""MM-MO: exact expectations, planted fronts, resumption, screening."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from wsl import search
from wsl.search._fronts import gaussian, improvement, mm_mo, pareto

KEY = jax.random.key(0)
SMALL: dict[str, Any] = {
  'start': 6, 'rounds': 2, 'proposals': 3, 'batch': 2, 'key': KEY
}  # fmt: skip


def distances(points: np.ndarray) -> np.ndarray:
  """Two losses whose front is the line between (0, 0) and (1, 1)."""
  return np.stack([(points**2).sum(1), ((points - 1) ** 2).sum(1)], axis=1)


@pytest.mark.parametrize(('tasks', 'cells'), [(2, 480), (3, 48), (4, 24)])
def test_the_expected_improvement_is_its_integral(
  tasks: int, cells: int
) -> None:
  random = np.random.default_rng(tasks)
  # The front is on the edges of the cells, of which each is free or not.
  front = random.integers(11, 20, (5, tasks)) * 0.1 - 1
  front[0, 0] = 1.5  # beyond the reference
  reference = np.full(tasks, 1.4)
  mean = random.uniform(0.2, 1, (2, tasks))
  deviation = random.uniform(0.2, 0.3, (2, tasks))
  space = improvement.cells(front, reference)
  found = improvement.expected_improvement(mean, deviation, space)
  width = 2.4 / cells
  z = width * (np.arange(cells) + 0.5) - 1
  grid = np.meshgrid(*[z] * tasks, indexing='ij')
  free = ~np.any(
    [np.all([x > y for x, y in zip(grid, p)], axis=0) for p in front], axis=0
  )
  for value, m, d in zip(found, mean, deviation):
    chances = [stats.norm.cdf(x, *two) for x, two in zip(grid, zip(m, d))]
    wanted = width**tasks * (np.prod(chances, axis=0) * free).sum()
    assert value == pytest.approx(wanted, rel=0.01)


def test_the_improvement_of_a_certain_point_is_its_volume() -> None:
  front, point = np.array([[0.2, 0.6], [0.5, 0.1]]), np.array([[0.3, 0.3]])
  reference = np.ones(2)
  gains = [
    improvement.expected_improvement(
      point, np.full((1, 2), 1e-9), improvement.cells(rows, reference)
    )
    for rows in (front, front[:0])
  ]
  volume = lambda x: search.hypervolume(x, reference=reference)
  gain = volume(np.concatenate([front, point])) - volume(front)
  np.testing.assert_allclose(gains[0], gain, atol=1e-6)
  np.testing.assert_allclose(gains[1], 0.49, atol=1e-6)


def test_processes_interpolate_and_conditioning_keeps_means() -> None:
  random = np.random.default_rng(0)
  cube = random.uniform(size=(12, 2))
  losses = distances(cube) * [1, 100] + [0, 7]
  zero, one = np.zeros(2), np.ones(2)
  model = gaussian.fit(cube, losses, zero, one)
  np.testing.assert_allclose(model(cube), losses, rtol=0.05, atol=0.05)
  other = random.uniform(size=(9, 2))
  mean, before = gaussian.predict(model, other)
  conditioned = gaussian.condition(model, other[0])
  after_mean, after = gaussian.predict(conditioned, other)
  np.testing.assert_allclose(after_mean, mean, rtol=0.02, atol=0.02)
  assert (after[0] < before[0]).all()
  assert (after <= before * (1 + 1e-6)).all()


def test_the_front_is_better_than_that_of_random_points() -> None:
  low, high = np.array([-2.0, -2, -2]), np.array([2.0, 2, 2])
  found = search.mm_mo(
    distances, 3, lower=low, upper=high, rounds=3, proposals=5, batch=5,
    crossover=None, reference=[6.0, 6.0], key=KEY,
  )  # fmt: skip
  assert found.samples.shape == (25, 3)
  assert ((low <= found.samples) & (found.samples <= high)).all()
  np.testing.assert_allclose(found.losses, distances(found.points))
  assert search.non_dominated(found.losses).all()
  assert (np.diff(found.losses[:, 0]) >= 0).all()
  volume = lambda x: search.hypervolume(distances(x), reference=[6, 6])
  random = np.random.default_rng(0)
  others = [volume(random.uniform(low, high, (25, 3))) for _ in range(20)]
  assert volume(found.samples) > max(others)


def test_an_interrupted_search_resumes(tmp_path: pathlib.Path) -> None:
  def fails(points: np.ndarray) -> np.ndarray:
    losses = distances(points)
    losses[points[:, 0] > 0.9] = np.nan
    return losses

  whole = search.mm_mo(fails, 2, **SMALL)
  path, calls = tmp_path / 'search.jsonl', []

  def interrupted(points: np.ndarray) -> np.ndarray:
    calls.append(len(points))
    if len(calls) == 2:
      raise KeyboardInterrupt
    return fails(points)

  with pytest.raises(KeyboardInterrupt):
    search.mm_mo(search.journal(interrupted, path), 2, **SMALL)
  again = search.mm_mo(search.journal(interrupted, path), 2, **SMALL)
  np.testing.assert_array_equal(again.samples, whole.samples)
  np.testing.assert_array_equal(again.sampled, whole.sampled)
  assert calls == [6, 2, 2, 2]


def test_mutants_and_screening_are_the_definitions() -> None:
  random = np.random.default_rng(0)
  points, elite = random.uniform(size=(40, 4)), random.uniform(size=(5, 4))
  mutants = {
    tuple(np.clip(a + 0.5 * (b - c), 0, 1).round(12))
    for a in elite for b in elite for c in elite
  }  # fmt: skip
  # Without crossover one coordinate is the mutant's, with 1 all are.
  changed = mm_mo._crossed(points, elite, 0.0, random) != points
  assert (changed.sum(1) == 1).all()
  for row in mm_mo._crossed(points, elite, 1.0, random):
    assert tuple(row.round(12)) in mutants
  losses = distances(elite) * [1, 1000]
  model = gaussian.fit(elite, losses, np.zeros(4), np.ones(4))
  deviation = gaussian.predict(model, points)[1] / model.scale
  order = np.argsort((1 / deviation**2).sum(1))
  found = mm_mo._screened(model, points, 3)
  np.testing.assert_array_equal(found, points[np.sort(order[:3])])


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'start': 4}, 'start=4 is not a whole number >= 5'),
    ({'batch': 4}, 'proposals=3 is not a whole number >= 4'),
    ({'crossover': 1.5}, 'crossover=1.5 is not in 0 .. 1'),
    ({'upper': np.inf}, 'lower and upper must be finite'),
    ({'reference': [1.0]}, r'reference has shape \(1,\): give one finite'),
  ],
)
def test_wrong_arguments_are_named(changes: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    search.mm_mo(distances, 2, **(SMALL | changes))


def test_wrong_losses_are_named() -> None:
  with pytest.raises(ValueError, match='mm_mo: losses returned 5 columns'):
    search.mm_mo(lambda x: np.ones((len(x), 5)), 2, **SMALL)
  with pytest.raises(ValueError, match='0 of 6 first points have finite'):
    search.mm_mo(lambda x: np.full((len(x), 2), np.nan), 2, **SMALL)
  with pytest.raises(ValueError, match='two losses or more'):
    search.mm_mo(lambda x: x[:, :1], 2, **SMALL)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
  def missing(name: str) -> None:
    raise ImportError(name)

  monkeypatch.setattr('importlib.import_module', missing)
  message = r'mm_mo needs the package scikit-learn: pip install .*\[search\]'
  with pytest.raises(ImportError, match=message):
    search.mm_mo(distances, 2, **SMALL)


def test_constant_losses_have_a_front() -> None:
  found = search.mm_mo(lambda x: np.ones((len(x), 2)), 2, **SMALL)
  assert len(found.points) == 10
  assert pareto.front_order(found.sampled).tolist() == [*range(10)]


def test_known_points_are_certain() -> None:
  # Losses without noise, some points twice.
  cube = np.random.default_rng(0).uniform(size=(25, 1))
  model = gaussian.fit(cube, distances(cube), np.zeros(1), np.ones(1))
  for point in cube[:5]:
    model = gaussian.condition(model, point)
  _, deviation = gaussian.predict(model, cube)
  assert (deviation > 0).all()
  assert (deviation < 0.02 * model.scale).all()
