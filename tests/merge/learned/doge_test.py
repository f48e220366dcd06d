"""DOGE against its definition in numpy."""

from typing import Any

import jax
import numpy as np

from tests.merge import battery
from wsl import merge, tree

WIDE = np.float64 == battery.FLOAT
NEAR = 1e-10 if WIDE else 2e-4


def draw(seed: int, *shape: int) -> Any:
  return np.random.default_rng(seed).normal(size=shape)


def oracle(
  leaves: list[Any], density: float, norm: float, steps: int, rate: float
) -> list[Any]:
  """DOGE of weights ``[T, out, in]`` with s = 2, from the authors' steps."""
  models = len(leaves[0])
  flat = np.concatenate([abs(x.reshape(models, -1)) for x in leaves], 1)
  kept = int(density * flat.shape[1])
  cut = np.sort(flat, 1)[:, -kept, None, None]
  found = []
  for x in leaves:
    scales = norm / np.linalg.norm(x, axis=(1, 2), keepdims=True)
    k = min(x.shape[1:])
    u = [np.linalg.svd(t)[0][:, : k // models] for t in x]
    basis = np.linalg.svd(np.concatenate(u, 1))[0][:, : k // 2]
    change = np.zeros_like(x[0])
    mean, square = np.zeros_like(change), np.zeros_like(change)
    for i in range(1, steps + 1):
      both = (scales * (x + change)).sum(0)
      rows = (x * (x - both)).sum(2, keepdims=True)
      g = -2 * scales.sum() * (rows * x).sum(0)
      g = g - basis @ basis.T @ g
      mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
      root = np.sqrt(square / (1 - 0.999**i)) + 1e-8
      change = change - rate * mean / (1 - 0.9**i) / root
    found.append((scales * (x + change) * (abs(x) >= cut)).sum(0))
  return found


def test_doge_is_the_definition() -> None:
  weights = [draw(0, 2, 5, 6), draw(1, 2, 4, 4)]
  hyper = {'density': 0.6, 'norm': 0.3, 'steps': 20, 'rate': 1e-2}
  wanted = oracle(weights, **hyper)
  x = dict(zip('uv', (np.swapaxes(w, 1, 2) for w in weights)))
  found = merge.doge(x | {'b': draw(2, 2, 7)}, subspace=2, **hyper)
  for name, want in zip('uv', wanted):
    np.testing.assert_allclose(found[name].T, want, rtol=NEAR, atol=NEAR)
  assert not np.any(found['b'])
  stored = {name: w for name, w in zip('uv', weights)}
  view = {'': tree.Matrix(rows=(1,), columns=(0,))}
  found = merge.doge(stored, subspace=2, matrices=view, **hyper)
  for name, want in zip('uv', wanted):
    np.testing.assert_allclose(found[name], want, rtol=NEAR, atol=NEAR)


def test_without_steps_doge_sums_task_vectors_of_one_norm() -> None:
  x = draw(3, 3, 6, 5)
  x[1] = 0
  found = merge.doge({'w': x}, density=1.0, norm=0.5, steps=0)['w']
  wanted = sum(0.5 * t / np.linalg.norm(t) for t in x[[0, 2]])
  np.testing.assert_allclose(found, wanted, rtol=NEAR, atol=NEAR)


def test_doge_is_finite_without_rank_and_with_many_tasks() -> None:
  low = draw(4, 16, 3, 1) * draw(5, 16, 1, 2)
  call = jax.jit(lambda x: merge.doge(x, steps=1, density=0.5))
  for x in (low, np.zeros_like(low), np.repeat(low[:1], 16, 0)):
    assert np.isfinite(call({'w': x})['w']).all()


def test_vectors_alone_are_left_to_the_base() -> None:
  found = merge.doge({'b': draw(6, 2, 3)})
  assert found['b'].shape == (3,)
  assert not np.any(found['b'])
