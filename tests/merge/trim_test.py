"""Trimming by squared norm and by deviations, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.merge import battery
from wsl import merge, tree


def draw(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(battery.FLOAT)


def test_trim_by_energy_and_by_deviations_is_the_definition() -> None:
  x = {'w': draw(0, 3, 4, 5), 'b': draw(1, 3, 6)}
  flat = np.concatenate([v.reshape(3, -1) for v in x.values()], 1)

  def energy(v: np.ndarray, share: float) -> np.ndarray:
    order = np.argsort(-abs(v), 1)
    mass = np.cumsum(np.take_along_axis(v, order, 1) ** 2, 1)
    last = np.argmax(mass >= share * mass[:, -1:], 1)
    floor = np.take_along_axis(abs(v), order, 1)[np.arange(3), last]
    return v * (abs(v) >= floor[:, None])

  def deviations(v: np.ndarray, factor: float) -> np.ndarray:
    centred = abs(v - v.mean(1, keepdims=True))
    return v * (centred > factor * v.std(1, ddof=1, keepdims=True))

  tau = jax.tree.map(jnp.asarray, x)
  stored = jax.tree.map(lambda v: tree.Stored(lambda: v, v.shape, v.dtype), x)
  for oracle, name, value in (
    (energy, 'energy', 0.8),
    (deviations, 'deviations', 0.9),
  ):
    wanted = oracle(flat, value)
    call = lambda x, v, name=name: merge.trim(x, **{name: v})
    for found in (
      call(tau, value),
      jax.jit(call)(tau, value),
      tree.read(call(stored, value)),
    ):
      np.testing.assert_array_equal(found['w'].reshape(3, -1), wanted[:, :20])
      np.testing.assert_array_equal(found['b'], wanted[:, 20:])
    leaf = merge.trim(tau, scope='leaf', **{name: value})
    np.testing.assert_array_equal(leaf['b'], oracle(x['b'], value))
  assert merge.trim(tau, energy=1.0)['w'].tolist() == x['w'].tolist()
  assert merge.trim(tau, deviations=0.0)['b'].tolist() == x['b'].tolist()
  zeros = jax.tree.map(jnp.zeros_like, tau)
  for how in ({'energy': 0.5}, {'deviations': 1.0}):
    assert not np.asarray(merge.trim(zeros, **how)['w']).any()
