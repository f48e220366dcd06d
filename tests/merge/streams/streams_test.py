"""Streams of models against their definitions in numpy."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.merge import battery
from wsl import checkpoint, deltas, merge, tree

WIDE = np.float64 == battery.FLOAT
NEAR = 1e-11 if WIDE else 2e-5
RNG = np.random.default_rng(2)


def draw(*shape: int) -> Any:
  return RNG.normal(size=shape).astype(battery.FLOAT)


X = {'u': draw(4, 5, 3), 'b': draw(4, 6), 'step': None}
BASE = {'u': draw(5, 3), 'b': draw(6), 'step': np.asarray(7)}


def close(found: Any, wanted: Any) -> None:
  for name in 'ub':
    want = wanted[name]
    np.testing.assert_allclose(found[name], want, rtol=NEAR, atol=NEAR)


def one(t: int) -> dict[str, Any]:
  return {'u': X['u'][t], 'b': X['b'][t], 'step': None}


@jax.jit
def update(alpha: float, tau: Any, state: Any) -> Any:
  return merge.opcm(alpha=alpha).update(tau, state)


def run(alpha: float, state: Any, models: Any) -> Any:
  for t in models:
    _, state = update(alpha, one(t), state)
  return state


def opcm(alpha: float) -> list[dict[str, Any]]:
  """OPCM of ``X`` after each model, by full singular vectors."""
  norm = lambda x: np.sqrt(sum((x[n] ** 2).sum() for n in 'ub'))
  merged, scale, norms, found = one(0), 1.0, [norm(one(0))], [one(0)]
  for t in range(1, 4):
    u, s, vt = np.linalg.svd(merged['u'])
    over = np.cumsum(s) / s.sum() > alpha
    cut = over.argmax()
    p = u.T @ X['u'][t] @ vt.T
    np.fill_diagonal(p, 0)
    p[:cut, :cut] = 0
    norms.append(norm(one(t)))
    added = {
      'u': scale * merged['u'] + u @ p @ vt,
      'b': scale * merged['b'] + X['b'][t],
    }
    scale = norm(added) / np.mean(norms)
    merged = {n: x / scale for n, x in added.items()}
    found.append(merged)
  return found


@pytest.mark.parametrize('alpha', [0.0, 0.5, 0.8, 1.5])
def test_opcm_is_the_definition(alpha: float) -> None:
  state = merge.opcm().init(BASE)
  total = jax.tree.map(np.zeros_like, state.merged)
  for t, wanted in enumerate(opcm(alpha)):
    change, state = update(alpha, one(t), state)
    total = jax.tree.map(np.add, total, change)
    close(state.merged, wanted)
  close(total, state.merged)
  assert state.models == 4
  model = optax.apply_updates(
    {n: BASE[n] for n in 'ub'}, {n: total[n] for n in 'ub'}
  )
  close(model, deltas.apply(BASE, state.merged))


def test_opcm_adds_what_is_orthogonal_and_keeps_the_mean_norm() -> None:
  before = run(1.0, merge.opcm().init(BASE), range(2))
  after = run(1.0, before, [2])
  added = after.scale * after.merged['u'] - before.scale * before.merged['u']
  assert abs(np.sum(added * before.merged['u'])) < 10 * NEAR
  # At alpha = 1 nothing remains in the span of both sides, here all columns.
  u = np.linalg.svd(np.asarray(before.merged['u']), full_matrices=False)[0]
  np.testing.assert_allclose(u.T @ added, 0, atol=10 * NEAR)
  np.testing.assert_allclose(tree.norm(after.merged), after.norm, rtol=NEAR)


def test_opcm_is_finite_for_zero_equal_and_low_rank_models() -> None:
  low = draw(5, 1) * draw(1, 3)
  fold = jax.jit(lambda alpha, x: merge.fold(merge.opcm(alpha=alpha), x))
  for models in ([0 * low, low, low], [low, low, 0 * low], [0 * low] * 3):
    assert np.isfinite(fold(0.5, np.stack(models))).all()
  # Equal models leave the merge as it is.
  found = fold(1.0, np.stack([low, low, low]))
  np.testing.assert_allclose(found, low, rtol=1e-4, atol=1e-4)


def test_averages_are_the_definitions() -> None:
  streams = (
    merge.running_mean(),
    merge.running_mean(correct_variance=True),
    merge.exponential_mean(decay=0.7),
  )
  fold = jax.jit(lambda x: [merge.fold(stream, x) for stream in streams])
  plain, corrected, exponential = fold(X)
  mean = {n: X[n].mean(0) for n in 'ub'}
  close(plain, mean)
  variance = {n: np.mean([np.var(x, ddof=1) for x in X[n]]) for n in 'ub'}
  ratio = {n: np.sqrt(variance[n] / np.var(mean[n], ddof=1)) for n in 'ub'}
  scaled = lambda n: mean[n].mean() + ratio[n] * (mean[n] - mean[n].mean())
  close(corrected, {n: scaled(n) for n in 'ub'})
  weights = 0.7 ** np.arange(3, -1, -1)
  close(exponential, {n: np.average(X[n], 0, weights) for n in 'ub'})


def test_bfloat16_models_are_averaged_in_float32() -> None:
  stream = merge.exponential_mean(decay=0.999, debias=False)
  state = stream.init({'w': jnp.ones(1, jnp.bfloat16)})
  for x in (1.0, 1.5):
    change, state = stream.update({'w': jnp.full(1, x, jnp.bfloat16)}, state)
  assert state.merged['w'].dtype == jnp.float32
  np.testing.assert_allclose(state.merged['w'], 1.0005, rtol=1e-6)
  np.testing.assert_allclose(change['w'], 0.0005, rtol=1e-3)


@pytest.mark.same_under_defaults('the file has the same arrays')
def test_a_stored_state_resumes(tmp_path: pathlib.Path) -> None:
  half = run(0.5, merge.opcm().init(BASE), [3, 1])
  checkpoint.save_run(tmp_path, half, step=2)
  again = checkpoint.restore_run(tmp_path, like=half)
  found, wanted = run(0.5, again, [0, 2]), run(0.5, half, [0, 2])
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_order_sensitivity() -> None:
  stream = merge.exponential_mean(decay=0.5)
  call = lambda x, key: merge.order_sensitivity(stream, x, key=key, samples=2)
  found = jax.jit(call)(X, jax.random.key(1))
  assert all(sorted(order) == [0, 1, 2, 3] for order in found.orders.tolist())
  weights = np.asarray([1, 2, 4, 8]) / 15
  each = {
    n: np.stack([np.average(X[n][o], 0, weights) for o in found.orders])
    for n in 'ub'
  }
  close(found.merged, each)
  away = sum(((x - x.mean(0)) ** 2).sum() for x in each.values()) / 2
  mean = sum((x.mean(0) ** 2).sum() for x in each.values())
  np.testing.assert_allclose(found.deviation, (away / mean) ** 0.5, rtol=1e-5)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: merge.opcm(alpha=-1), 'opcm(alpha=-1): expected numbers >= 0'),
    (
      lambda: merge.exponential_mean(decay=1.0),
      'exponential_mean(decay=1): it has to be less than 1',
    ),
    (
      lambda: merge.opcm().init({'n': np.arange(3)}),
      'opcm: the model has no float leaf to merge',
    ),
    (
      lambda: merge.running_mean().update(
        one(0) | {'b': np.ones(5, battery.FLOAT)},
        merge.running_mean().init(BASE),
      ),
      "running_mean: the task vector has (5,) at leaf 'b', the state (6,): "
      'give models of one base',
    ),
    (
      lambda: merge.order_sensitivity(
        merge.running_mean(), X, key=jax.random.key(0), samples=0
      ),
      'order_sensitivity(samples=0): expected an integer >= 1',
    ),
  ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
  with pytest.raises(ValueError) as error:
    call()
  assert str(error.value) == message
