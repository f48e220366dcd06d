"""Closed forms on task vectors against their definitions in numpy."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.merge import battery
from wsl import merge, tree

# Float32 where the run has JAX's defaults.
NEAR = 1e-12 if np.float64 == battery.FLOAT else 2e-5


def draw(seed: int, *shape: int) -> Any:
  return np.random.default_rng(seed).normal(size=shape)


def model(seed: int, models: int) -> dict[str, Any]:
  return {'w': draw(seed, models, 6, 5), 'b': draw(seed + 1, models, 7)}


def flat(x: dict[str, Any]) -> Any:
  """Joins the leaves of a stack, ``[T, d]``, in the order of names."""
  return np.concatenate(
    [v.reshape(len(v), -1) for _, v in sorted(x.items())], 1
  )


def joined(x: Any) -> Any:
  """Joins the leaves of a merged task vector, ``[d]``."""
  return np.concatenate([np.ravel(v) for _, v in sorted(tree.read(x).items())])


def close(found: Any, wanted: Any) -> None:
  np.testing.assert_allclose(found, wanted, rtol=NEAR, atol=NEAR)


@pytest.mark.parametrize('models', [1, 2, 5])
def test_magmax_is_the_largest_magnitude(models: int) -> None:
  x = model(0, models)
  tau = flat(x)
  wanted = np.take_along_axis(tau, np.abs(tau).argmax(0)[None], 0)[0]
  close(joined(merge.magmax(x)), wanted)


def test_magmax_takes_the_last_of_equal_magnitudes() -> None:
  x = {'w': jnp.asarray([[2.0, 0.0, 3.0], [-2.0, 0.0, -1.0], [2.0, 0.0, -3.0]])}
  assert merge.magmax(x)['w'].tolist() == [2.0, 0.0, -3.0]
  assert merge.magmax({'w': x['w'][:2]})['w'].tolist() == [-2.0, 0.0, 3.0]


def pcb(tau: Any, r: float, q: float, dialect: str) -> Any:
  """PCB-Merging of ``[T, d]`` by sorting, from its definition."""
  models, d = tau.shape
  rows = np.sort(np.abs(tau), axis=1)
  low = rows[:, [int(d * q)]]
  high = rows[:, [int(d * (1 - q) - 1)]]
  size = np.clip(np.abs(tau), low, high)
  n = (size - low) / (high - low)
  u = np.sign(tau) * n
  between = {
    'es': lambda: np.tanh(u[:, None] * u[None]).sum(1),
    'vision': lambda: np.tanh(tau * u.sum(0)),
    'merging': lambda: np.tanh(tau * tau.sum(0)),
  }
  beta = np.exp(models * n**2) * between[dialect]()
  cut = np.sort(beta, axis=1)[:, [int(d * (1 - r))]]
  s = np.maximum(beta, cut) - cut
  s = s / s.max(1, keepdims=True)
  return (s * np.sign(tau) * size).sum(0) / np.maximum(s.sum(0), 1e-12)


@pytest.mark.parametrize('dialect', ['es', 'vision', 'merging'])
def test_pcb_is_the_definition(dialect: str) -> None:
  x = model(3, 3)
  # Of 0.9 of the entries some have a negative score, so the cut is negative.
  for r, q in ((0.3, 0.05), (0.9, 0.0), (1.0, 0.2)):
    found = joined(merge.pcb(x, density=r, clip=q, dialect=dialect))
    near = 1e-10 if np.float64 == battery.FLOAT else 1e-3
    wanted = pcb(flat(x), r, q, dialect)
    np.testing.assert_allclose(found, wanted, rtol=near, atol=near)


def test_pcb_of_one_model_keeps_its_clipped_entries() -> None:
  x = model(4, 1)
  (tau,) = flat(x)
  found = joined(merge.pcb(x, density=0.25, clip=0.0))
  kept = found != 0
  assert kept.sum() == int(37 * 0.25)  # the k-th itself has the weight 0
  close(found[kept], tau[kept])
  assert np.abs(tau[kept]).min() > np.abs(tau[~kept]).max()


def test_pcb_of_equal_magnitudes_has_no_weight() -> None:
  x = {'w': np.asarray([[1.0, 2, -1], [3, 3, 3], [0, 0, 0]])}
  alone = merge.pcb({'w': x['w'][:1]}, density=1.0, clip=0.0)
  close(merge.pcb(x, density=1.0, clip=0.0)['w'], alone['w'])
  both = merge.pcb(x, density=1.0, clip=0.0, coefs=[2.0, 1.0, 1.0])
  close(both['w'], 2 * alone['w'])


@pytest.mark.parametrize('target', ['others', 'conservative', 'self'])
def test_variance_corrected_is_the_definition(target: str) -> None:
  x = model(5, 4)
  found = merge.variance_corrected(x, self_weight=0.3, target=target)
  for name, leaf in x.items():
    rows = leaf.reshape(4, -1)
    own, *others = rows.var(1, ddof=1)
    v = {
      'others': np.mean(others),
      'conservative': 0.3 * own + 0.7 * np.mean(others),
      'self': own,
    }[target]
    a = 0.3 * rows[0] + 0.7 * rows[1:].mean(0)
    wanted = a.mean() + (a - a.mean()) * np.sqrt(v / a.var(ddof=1))
    close(np.ravel(found[name]), wanted)
    close(np.var(np.asarray(found[name]), ddof=1), v)


def test_averages_of_uncorrelated_models_get_their_variance_back() -> None:
  x = draw(6, 5, 400)
  basis = np.linalg.svd(x - x.mean(1, keepdims=True), full_matrices=False)[2]
  # Orthogonal to each other and to constants.
  found = merge.variance_corrected({'w': basis})['w']
  close(found, basis.mean(0) * np.sqrt(5))
  same = merge.variance_corrected({'w': np.tile(x[:1], (3, 1))})['w']
  close(same, x[0])
  # FollowOthers without an own model is the mean of those received.
  close(
    merge.variance_corrected({'w': x}, self_weight=0.0)['w'],
    merge.variance_corrected({'w': x[1:]})['w'],
  )
  opposed = np.stack([x[0] / 3, -x[0] / 3 * (1 + 1e-16), 0 * x[0]])
  assert np.abs(merge.variance_corrected({'w': opposed})['w']).max() < 1e-6


@pytest.mark.parametrize('weighting', ['loss', 'step', 'exponential'])
def test_metric_weighted_is_the_definition(weighting: str) -> None:
  x, metrics = model(7, 4), np.asarray([2.0, 0.5, 1.5, 3.0])
  ask = functools.partial(
    merge.metric_weighted, x, metrics=metrics, weighting=weighting
  )
  power = {
    'loss': metrics**-1.7,
    'step': metrics**1.7,
    'exponential': np.exp(-1.7 * metrics / metrics.mean()),
  }[weighting]
  close(joined(ask(penalty=1.7)), power / power.sum() @ flat(x))
  close(joined(ask(penalty=0.0)), flat(x).mean(0))
  best = {'loss': 1, 'step': 3, 'exponential': 1}[weighting]
  close(joined(ask(penalty=5000.0)), flat(x)[best])
  scaled = merge.metric_weighted(
    x, metrics=1e3 * metrics, weighting=weighting, penalty=1.7
  )
  close(joined(scaled), joined(ask(penalty=1.7)))


@pytest.mark.parametrize('dialect', ['paper', 'official'])
def test_emr_is_the_definition(dialect: str) -> None:
  x = model(8, 3)
  family = merge.emr(x, dialect=dialect)
  unified, own, shared = {}, np.zeros(3), np.zeros(3)
  for name, tau in x.items():
    sign = np.sign(tau.sum(0))
    unified[name] = sign * np.max(np.where(tau * sign > 0, np.abs(tau), 0), 0)
    mask = tau * unified[name] > 0
    np.testing.assert_array_equal(family.masks[name], mask)
    reduce = {'paper': np.sum, 'official': np.mean}[dialect]
    for t in range(3):
      own[t] += reduce(np.abs(tau[t]))
      shared[t] += reduce(np.abs(mask[t] * unified[name]))
  close(joined(family.merged), joined(unified))
  close(family.scales, own / shared)
  for t in range(3):
    found = merge.materialize(family, t)
    for name, tau in x.items():
      mask = tau[t] * unified[name] > 0
      close(found[name], own[t] / shared[t] * mask * unified[name])
    # The scale restores the L1 norm of each task vector.
    if dialect == 'paper':
      close(np.abs(joined(found)).sum(), np.abs(flat(x)[t]).sum())


def test_emr_of_sums_that_cancel_and_of_a_zero_task() -> None:
  x = {'w': np.asarray([[1.0, 2.0], [-1.0, 1.0], [0.0, 0.0]])}
  assert merge.emr(x).merged['w'].tolist() == [0, 2]
  official = merge.emr(x, dialect='official')
  assert official.merged['w'].tolist() == [-1, 2]
  close(official.scales, [1.5, 2 / 3, 0])
  assert merge.materialize(official, 2)['w'].tolist() == [0, 0]


@pytest.mark.parametrize('kept', [None, 0.8])
def test_tsv_compress_is_the_best_approximation(kept: float | None) -> None:
  x = model(9, 2)
  found = merge.tsv_compress(x, kept=kept)
  u, s, vt = np.linalg.svd(x['w'], full_matrices=False)
  s[:, 4 if kept else 2 :] = 0
  near = 1e-10 if np.float64 == battery.FLOAT else 1e-4
  wanted = (u * s[:, None]) @ vt
  np.testing.assert_allclose(found['w'], wanted, rtol=near, atol=near)
  np.testing.assert_array_equal(found['b'], x['b'])
  view = tree.Matrix(batch=(0,), rows=(1,), columns=(2,))
  layers = merge.tsv_compress({'w': x['w'][:, None]}, matrices={'w': view})
  want = merge.tsv_compress({'w': x['w']})['w']
  np.testing.assert_allclose(layers['w'][:, 0], want, rtol=near, atol=near)


def wudi(x: Any, steps: int, rate: float) -> Any:
  """Adam on the sum of squared interferences, of weights ``[out, in]``."""
  tau = x.sum(0)
  mean, square = np.zeros_like(tau), np.zeros_like(tau)
  for i in range(1, steps + 1):
    g = sum(2 * (tau - t) @ t.T @ t / (t**2).sum() for t in x)
    mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
    root = np.sqrt(square / (1 - 0.999**i)) + 1e-8
    tau = tau - rate * mean / (1 - 0.9**i) / root
  return tau


def test_wudi_is_the_definition() -> None:
  x = model(10, 3)
  found = merge.wudi(x, steps=40, rate=1e-2)
  near = 1e-10 if np.float64 == battery.FLOAT else 1e-3
  weights = np.swapaxes(x['w'], 1, 2)  # [out, in]
  wanted = wudi(weights, 40, 1e-2)
  np.testing.assert_allclose(found['w'].T, wanted, rtol=near, atol=near)
  close(found['b'], x['b'].mean(0))
  view = {'w': tree.Matrix(rows=(1,), columns=(0,))}
  stored = merge.wudi({'w': weights}, steps=40, rate=1e-2, matrices=view)
  np.testing.assert_allclose(stored['w'], wanted, rtol=near, atol=near)


def test_wudi_of_one_task_is_that_task_and_lowers_interference() -> None:
  x = model(11, 3)
  one = {'w': x['w'][:1]}
  close(merge.wudi(one, steps=9, rate=1.0)['w'], x['w'][0])
  zero = {'w': np.zeros((2, 3, 4))}
  assert not np.any(merge.wudi(zero, steps=9, rate=1.0)['w'])
  cost = lambda m: sum(
    np.square((m - t).T @ t).sum() / np.square(t).sum() for t in x['w']
  )
  merged = merge.wudi(x, steps=200, rate=1e-2)['w']
  assert cost(np.asarray(merged)) < 0.5 * cost(x['w'].sum(0))
