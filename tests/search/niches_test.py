"""Archives: shares of niches, crossovers, parents, insertion, runs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import search
from wsl.search import _m2n2

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
A = {'a/2': RANDOM.normal(size=(2, 3)), 'a/10': RANDOM.normal(size=4)}
B = {name: RANDOM.normal(size=x.shape) for name, x in A.items()}
cross = jax.jit(search.crossover)


def flat(params: Any) -> np.ndarray:
  """Returns all entries, a/2 before a/10."""
  return np.concatenate([np.ravel(params['a/2']), params['a/10']])


def slerp(a: np.ndarray, b: np.ndarray, v: np.ndarray) -> np.ndarray:
  """The paper's formula, in numpy."""
  omega = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
  wave = lambda x: np.sin(x * omega) / np.sin(omega)
  return wave(1 - v) * a + wave(v) * b


@pytest.mark.parametrize(('split', 'weight'), [(7, 0.3), (0, 0.8), (10, 0.8)])
def test_a_crossover_is_the_formula(split: int, weight: float) -> None:
  v = np.where(np.arange(10) < split, weight, 1 - weight)
  found = cross(A, B, split=split, weight=weight)
  wanted = slerp(flat(A), flat(B), v)
  tolerance = 1e-12 if jax.config.jax_enable_x64 else 1e-5
  np.testing.assert_allclose(flat(found), wanted, atol=tolerance)


def test_special_crossovers() -> None:
  spliced = flat(cross(A, B, split=7, weight=0.0))
  wanted = np.concatenate([flat(A)[:7], flat(B)[7:]])
  np.testing.assert_allclose(spliced, wanted, atol=1e-6)
  halves = [flat(cross(A, B, split=k, weight=0.5)) for k in (2, 9)]
  np.testing.assert_allclose(*halves, atol=1e-6)
  same = flat(cross(A, A, split=4, weight=0.3))
  np.testing.assert_allclose(same, flat(A), atol=1e-6)
  zero = jax.tree.map(np.zeros_like, A)
  line = flat(cross(zero, A, split=10, weight=0.25))
  np.testing.assert_allclose(line, flat(A) / 4, atol=1e-6)


def test_shares_of_niches() -> None:
  scores = jnp.asarray([[1.0, 0, 2, 0], [1, 0, 0, 0], [0, 1, 2, 0]])
  found = search.niche_shares(scores)
  wanted = [[0.5, 0, 0.5, 0], [0.5, 0, 0, 0], [0, 1, 0.5, 0]]
  assert found.tolist() == wanted
  plain = search.niche_shares(scores, exponent=0.0)
  assert plain.tolist() == scores.tolist()
  half = search.niche_shares(scores, exponent=0.5)
  np.testing.assert_allclose(half[0], [0.5**0.5, 0, 1, 0], rtol=1e-6)


def test_parents_are_drawn_by_fitness_and_by_what_they_add() -> None:
  scores = jnp.asarray([[1.0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1], [0] * 4])
  shares = np.asarray(search.niche_shares(scores))
  fitness = shares.sum(1)
  draw = lambda key: _m2n2._parents(scores, key, 1.0, attraction=True)
  a, b = map(np.asarray, jax.vmap(draw)(jax.random.split(KEY, 4000)))
  # Frequencies of 4000 draws have deviations of 0.008 at most.
  found = np.bincount(a, minlength=4) / 4000
  np.testing.assert_allclose(found, fitness / fitness.sum(), atol=0.03)
  for first in range(3):
    gain = np.maximum(0, shares - shares[first]).sum(1)
    found = np.bincount(b[a == first], minlength=4) / (a == first).sum()
    np.testing.assert_allclose(found, gain / gain.sum(), atol=0.06)


def test_a_mate_of_the_best_of_all_is_drawn_by_fitness() -> None:
  scores = jnp.asarray([[1.0, 1.0], [1.0, 1.0]])
  draw = lambda key: _m2n2._parents(scores, key, 1.0, attraction=True)
  a, b = map(np.asarray, jax.vmap(draw)(jax.random.split(KEY, 400)))
  assert 0.35 < a.mean() < 0.65
  assert 0.35 < b.mean() < 0.65


@pytest.mark.parametrize(
  ('scores', 'place'),
  [([1.0, 0.0, 1.0], 1), ([0.0, 0.0, 1.0], 1), ([0.0, 0.1, 0.0], None)],
)
def test_a_child_replaces_the_least_fit(
  scores: list[float], place: int | None
) -> None:
  # Two clones share the first example; the third model has the second alone.
  now = search.archive(
    {'w': jnp.arange(3.0)},
    jnp.asarray([[1.0, 0, 0], [0.9, 0, 0], [0, 1, 0]]),
    size=3,
  )
  child = {'w': jnp.asarray(9.0)}
  after = _m2n2._insert(now, child, jnp.asarray(scores), 1.0)
  wanted = [0.0, 1.0, 2.0]
  if place is not None:
    wanted[place] = 9.0
    np.testing.assert_allclose(after.scores[place], scores)
  assert after.models['w'].tolist() == wanted


def test_runs_join_two_experts() -> None:
  # Each task needs its own half of the entries: a split in the middle has both.
  target = jnp.asarray([1.0] * 4 + [-1.0] * 4)
  score = lambda params: jnp.where(params['w'] * target > 0.9, 1.0, 0.0)
  experts = {'w': jnp.stack([jnp.ones(8), -jnp.ones(8)])}
  start = search.archive(experts, jax.vmap(score)(experts), size=5)
  assert start.models['w'].shape == (5, 8)
  run = lambda key, **options: search.m2n2(
    score, start, steps=100, key=key, **options
  )
  keys = jax.random.split(KEY, 8)
  after, best = jax.jit(jax.vmap(run))(keys)
  assert best.shape == (8, 100)
  assert best[:, -1].min() > 0.5  # an expert
  assert best[:, -1].max() == 1.0
  for i in range(8):  # the archive's scores are those of its models
    models = {'w': after.models['w'][i]}
    np.testing.assert_array_equal(jax.vmap(score)(models), after.scores[i])
  # Without a split no child has both halves.
  _, best = jax.jit(jax.vmap(lambda key: run(key, split=False)))(keys)
  assert best.max() == 0.5


def test_mutants_without_mates_move_by_the_deviation() -> None:
  start = search.archive({'w': jnp.zeros((1, 4000))}, jnp.ones((1, 1)), size=2)
  score = lambda params: jnp.ones(1)
  after, _ = search.m2n2(
    score, start, steps=1, mutation=0.1, mate=False, key=KEY
  )
  child = np.asarray(after.models['w'])[1]
  assert abs(child.std() - 0.1) < 0.006
  assert abs(child.mean()) < 0.008


def test_wrong_arguments_are_named() -> None:
  w = jnp.ones((2, 3))
  with pytest.raises(ValueError, match=r"leaf 'w' has shape \(2, 3\), scores"):
    search.archive({'w': w}, jnp.ones((3, 5)), size=4)
  with pytest.raises(ValueError, match='size=1 is not a whole number >= 2'):
    search.archive({'w': w}, jnp.ones((2, 5)), size=1)
  with pytest.raises(ValueError, match="leaf 'w' is int32, not real floats"):
    search.archive({'w': w.astype(jnp.int32)}, jnp.ones((2, 5)), size=4)
  start = search.archive({'w': w}, jnp.ones((2, 5)), size=4)
  with pytest.raises(ValueError, match=r'score returns shape \(3,\)'):
    search.m2n2(lambda p: p['w'], start, steps=3, key=KEY)
  with pytest.raises(ValueError, match='mutation=-1 is not'):
    search.m2n2(lambda p: p['w'], start, steps=3, mutation=-1, key=KEY)
