"""Closed forms on task vectors against their definitions in numpy."""

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
