"""Frank-Wolfe merging against its steps in numpy, on quadratic losses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.merge import battery
from wsl import merge

NEAR = 1e-12 if np.float64 == battery.FLOAT else 1e-5
T, K = 4, 3
RNG = np.random.default_rng(0)


def draw(*shape: int) -> Any:
  return RNG.normal(size=shape).astype(battery.FLOAT)


BASE = {'u': draw(2, 3), 'v': draw(4), 'step': np.asarray(3)}
DELTAS = {'u': draw(T, 2, 3), 'v': draw(T, 4), 'step': None}
GOALS = {'u': draw(K, 2, 3), 'v': draw(K, 4)}


def loss(params: Any, batch: Any) -> Any:
  each = [jnp.sum((params[name] - batch[name]) ** 2) for name in batch]
  return each[0] + each[1] * 3


def slopes(merged: dict[str, Any], k: int) -> dict[str, Any]:
  factors = {'u': 2, 'v': 6}
  return {
    n: f * (BASE[n] + merged[n] - GOALS[n][k]) for n, f in factors.items()
  }


def scores(slope: dict[str, Any], pool: Any, scope: str, official: bool) -> Any:
  found = {}
  for name, g in slope.items():
    points = pool[name] + official * BASE[name]
    found[name] = np.asarray([(g * x).sum() for x in points])
    if official:
      norms = [np.linalg.norm(g) * np.linalg.norm(x) for x in points]
      found[name] = found[name] / norms
  if scope == 'global':
    return dict.fromkeys(found, found['u'] + found['v'])
  return found


def hard(scope: str, official: bool, rate: float, scale: float) -> Any:
  pool = {name: DELTAS[name] for name in 'uv'}
  merged = {
    n: scale * x.sum(0) if official else x.mean(0) for n, x in pool.items()
  }
  if official:
    pool = {n: np.concatenate([x, merged[n][None]]) for n, x in pool.items()}
  for i in range(5):
    each = [slopes(merged, k) for k in range(K)]
    mean = {n: sum(g[n] for g in each) for n in 'uv'}
    best = scores(mean, pool, scope, official)
    size = scale * 2 * rate / (i + 2)
    picked = {n: pool[n][best[n].argmin()] for n in 'uv'}
    merged = {n: y + size * (picked[n] - y) for n, y in merged.items()}
  return merged


def soft(scope: str, official: bool, rate: float, scale: float) -> Any:
  merged = {n: 0 * DELTAS[n][0] for n in 'uv'}
  for i in range(5):
    picks: dict[str, list[int]] = {'u': [], 'v': []}
    for k in range(K):
      best = scores(slopes(merged, k), DELTAS, scope, official)
      for n, score in best.items():
        free = [j for j in np.argsort(score) if j not in picks[n]]
        picks[n].append(int(free[0]))
    size = scale * (2 * rate / (i + 2) if i else 1)
    moves = {n: DELTAS[n][picks[n]] - y for n, y in merged.items()}
    merged = {n: y + size * moves[n].sum(0) for n, y in merged.items()}
  return merged


@pytest.mark.parametrize(
  ('form', 'scope', 'official'),
  [
    ('hard', 'global', False),
    ('hard', 'leaf', True),
    ('soft', 'leaf', False),
    ('soft', 'global', True),
  ],
)
def test_frank_wolfe_is_the_definition(
  form: str, scope: str, official: bool
) -> None:
  found = merge.frank_wolfe(
    DELTAS,
    base=BASE,
    loss_fn=loss,
    batches=GOALS,
    steps=5,
    rate=0.6,
    scale=0.4,
    form=form,
    scope=scope,
    dialect='official' if official else 'paper',
  )
  oracle = {'hard': hard, 'soft': soft}[form]
  wanted = oracle(scope, official, 0.6, 0.4)
  assert found['step'] is None
  for name, want in wanted.items():
    np.testing.assert_allclose(found[name], want, rtol=NEAR, atol=NEAR)


def test_learned_coefficients_lower_the_loss() -> None:
  learned = merge.frank_wolfe(
    DELTAS,
    base=BASE,
    loss_fn=loss,
    batches=GOALS,
    steps=2,
    form='soft',
    scale=0.3,
    coef_steps=40,
    coef_rate=1e-2,
  )
  fixed = soft('global', official=False, rate=1.0, scale=0.3)
  assert cost(learned) < 0.9 * cost(fixed)


def cost(merged: Any) -> float:
  model = {n: BASE[n] + np.asarray(merged[n]) for n in 'uv'}
  goals = [{n: GOALS[n][k] for n in 'uv'} for k in range(K)]
  square = lambda n, goal: ((model[n] - goal[n]) ** 2).sum()
  return sum(float(square('u', g) + 3 * square('v', g)) for g in goals)


def test_no_steps_give_the_start_and_zero_tasks_are_finite() -> None:
  given: Any = {'base': BASE, 'loss_fn': loss, 'batches': GOALS}
  start = {n: np.ones_like(DELTAS[n][0]) for n in 'uv'} | {'step': None}
  found = merge.frank_wolfe(DELTAS, **given, steps=0, start=start)
  np.testing.assert_array_equal(found['u'], start['u'])
  zero = jax.tree.map(np.zeros_like, DELTAS)
  found = merge.frank_wolfe(zero, **given, scope='leaf', dialect='official')
  assert not np.any(found['v'])
