"""Levels of layers: planted optima, budgets, stages, resumption."""

import itertools
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from wsl import search

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
# Errors of 8 layers at 5 levels, convex and falling, and costs of two kinds.
ERRORS = RANDOM.uniform(0.2, 5, (8, 1)) * (0.5 ** np.arange(5.0))
EQUAL = np.ones((8, 1)) * np.arange(5.0)
UNEQUAL = RANDOM.integers(1, 4, (8, 1)) * np.arange(5.0)


def error(levels: np.ndarray) -> np.ndarray:
  return ERRORS[np.arange(8), levels.astype(int)].sum(1)


def cost(levels: np.ndarray, costs: np.ndarray) -> np.ndarray:
  return costs[np.arange(8), levels].sum(1)


def best(costs: np.ndarray, budget: float) -> float:
  """The least error within a whole budget, by dynamic programming."""
  reached = np.zeros(int(budget) + 1)
  for errors, own in zip(ERRORS, costs.astype(int)):
    reached = np.array([
      min(reached[b - c] + e for e, c in zip(errors, own) if c <= b)
      for b in range(len(reached))
    ])  # fmt: skip
  return float(reached[-1])


@pytest.mark.parametrize('costs', [EQUAL, UNEQUAL], ids=['equal', 'unequal'])
def test_the_planted_optimum_is_found(costs: np.ndarray) -> None:
  budget = costs[:, 2].sum()
  found = search.level_switch(
    [error], costs, budget=budget, generations=40, key=KEY
  )
  assert found.loss == pytest.approx(best(costs, budget), rel=1e-12)
  assert found.loss < 0.95 * found.losses[0]
  np.testing.assert_array_equal(found.points[0], np.full(8, 2))
  assert np.issubdtype(found.points.dtype, np.integer)
  assert (cost(found.points, costs) <= budget).all()
  if costs is EQUAL:  # a switch keeps the cost
    assert (cost(found.points, costs) == budget).all()


def test_stages_evaluate_fewer_and_fewer() -> None:
  asked: dict[str, list[np.ndarray]] = {'first': [], 'second': [], 'last': []}

  def stage(name: str, noise: float) -> Any:
    random = np.random.default_rng(1)

    def loss(levels: np.ndarray) -> np.ndarray:
      asked[name].append(levels)
      return error(levels) + noise * random.normal(size=len(levels))

    return loss

  search.level_switch(
    [stage('first', 0.1), stage('second', 0.0), stage('last', 0.0)],
    EQUAL, budget=16, generations=6, offspring=12, survivors=(4, 2), key=KEY,
  )  # fmt: skip
  shape = lambda name: {len(x) for x in asked[name]}
  assert (shape('first'), shape('second'), shape('last')) == ({12}, {4}, {3})
  for first, second, last in zip(*asked.values()):
    assert len(np.unique(first, axis=0)) == 12
    rows = lambda x: {tuple(row) for row in x}
    assert rows(last[1:]) < rows(second) < rows(first)
    # The second stage has no noise: its two best are kept.
    assert sorted(error(second))[:2] == pytest.approx(sorted(error(last[1:])))
  # Each generation begins with its parent, the best of the one before.
  for before, after in itertools.pairwise(asked['last']):
    assert error(after[:1])[0] == error(before).min()


def test_a_missing_level_and_an_unspent_budget() -> None:
  costs = EQUAL.copy()
  costs[:3, 3:] = np.inf
  found = search.level_switch(
    [error], costs, budget=1000, start=np.zeros(8, int), generations=16,
    offspring=8, key=KEY,
  )  # fmt: skip
  assert found.point.tolist() == [2, 2, 2, 4, 4, 4, 4, 4]
  # All layers are at their highest level: there is no offspring.
  assert len(search.level_switch(
    [error], costs, budget=1000, start=found.point, generations=2,
    offspring=8, key=KEY,
  ).points) == 2  # fmt: skip


def test_failures_rank_last() -> None:
  fails = lambda x: np.where(x[:, 0] > 2, np.nan, error(x))
  found = search.level_switch(
    [fails], EQUAL, budget=16, generations=10, key=KEY
  )
  assert np.isnan(found.losses).any()
  assert found.point[0] <= 2


def test_an_interrupted_search_resumes(tmp_path: pathlib.Path) -> None:
  options: dict[str, Any] = {
    'budget': 16, 'generations': 4, 'offspring': 8, 'survivors': (3,),
    'key': KEY,
  }  # fmt: skip
  whole = search.level_switch([error, error], EQUAL, **options)
  calls = []

  def interrupted(levels: np.ndarray) -> np.ndarray:
    calls.append(len(levels))
    if len(calls) == 3:
      raise KeyboardInterrupt
    return error(levels)

  def run() -> search.Search:
    losses = [
      search.journal(error, tmp_path / 'first.jsonl'),
      search.journal(interrupted, tmp_path / 'last.jsonl'),
    ]
    return search.level_switch(losses, EQUAL, **options)

  with pytest.raises(KeyboardInterrupt):
    run()
  again = run()
  np.testing.assert_array_equal(again.points, whole.points)
  np.testing.assert_array_equal(again.losses, whole.losses)
  assert calls == [4] * 5  # of them one was interrupted


def test_levels_of_a_tree() -> None:
  database = {'a': np.arange(12.0).reshape(3, 4), 'b': np.arange(3.0)}
  found = jax.jit(search.at_levels)(database, np.array([2.0, 1.0]))
  np.testing.assert_array_equal(found['a'], database['a'][2])
  assert float(found['b']) == 1
  with pytest.raises(ValueError, match=r'shape \(3,\) for 2 leaves'):
    search.at_levels(database, [0, 1, 2])


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'budget': -1}, 'budget=-1 is below the cost of all lowest levels, 0'),
    ({'start': [1] * 7}, r'is not one level in 0 .. 4 for each of 8 layers'),
    ({'start': [4] * 8}, 'start costs 32, over budget=16'),
    ({'survivors': (2,)}, 'give a number of survivors for each but the last'),
    ({'losses': error}, 'losses is a list of functions'),
    ({'losses': [error] * 3, 'survivors': (2, 3)}, 'are not in 32 .. 1, each'),
    ({'costs': -EQUAL}, 'costs must not fall with the level'),
    ({'costs': EQUAL[0]}, r'costs have shape \(5,\): give \[L, K\]'),
    ({'generations': 0}, 'generations=0 is not a whole number >= 1'),
  ],
)
def test_wrong_arguments_are_named(changes: Any, message: str) -> None:
  arguments = {
    'losses': [error], 'costs': EQUAL, 'budget': 16, 'generations': 1,
    'key': KEY,
  } | changes  # fmt: skip
  with pytest.raises(ValueError, match=message):
    search.level_switch(
      arguments.pop('losses'), arguments.pop('costs'), **arguments
    )
