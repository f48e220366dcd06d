"""Population Based Training: copies, factors, and a planted learning rate."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import search
from wsl.search import _pbt

KEY = jax.random.key(0)


def descend(x: Any, hyper: Any, key: Any) -> Any:
  """A step of gradient descent on x^2, which diverges above a rate of 1."""
  del key
  return x - hyper['rate'] * 2 * x


def run(rates: Any, **changes: Any) -> search.Population:
  rates = jnp.asarray(rates)
  start = jnp.ones(len(rates), rates.dtype)
  arguments = {'rounds': 12, 'key': KEY} | changes
  return search.pbt(descend, jnp.square, start, {'rate': rates}, **arguments)


def test_the_population_is_replayed_by_its_history() -> None:
  rates = np.array([0.001, 0.01, 0.05, 0.2, 1.5])
  found = run(rates, share=0.4)
  origins = np.asarray(found.origins)
  schedule = np.asarray(found.schedule['rate'], np.float64)
  np.testing.assert_allclose(schedule[0], rates, rtol=1e-6)
  x = np.ones(5)
  for i in range(12):
    x = x * (1 - 2 * schedule[i])
    np.testing.assert_allclose(found.losses[i], x**2, rtol=1e-4)
    order = np.argsort(x**2)
    same = origins[i] == np.arange(5)
    assert same[order[:3]].all()
    assert set(origins[i][order[3:]]) <= set(order[:2])
    if i < 11:
      ratio = schedule[i + 1] / schedule[i][origins[i]]
      np.testing.assert_allclose(ratio[same], 1, rtol=1e-6)
      steps = np.abs(ratio[~same][:, None] - [0.8, 1.2]).min(1)
      np.testing.assert_allclose(steps, 0, atol=1e-5)
      x = x[origins[i]]
  np.testing.assert_allclose(found.states, x, rtol=1e-4)
  np.testing.assert_allclose(found.hyper['rate'], schedule[-1], rtol=1e-6)


def test_the_learning_rate_is_found() -> None:
  # The best rate is 0.5; from 0.1 the population climbs towards it.
  found = run(np.full(10, 0.1), rounds=25)
  assert 0.2 < np.median(np.asarray(found.hyper['rate'])) < 0.8
  assert float(found.losses[-1].min()) < 1e-3 * 0.8**50


def test_a_nan_is_replaced() -> None:
  losses = jnp.asarray([3.0, jnp.nan, 1.0, 2.0])
  assert _pbt._origins(losses, KEY, 1).tolist() == [0, 2, 2, 3]


def test_wrong_arguments_are_named() -> None:
  with pytest.raises(ValueError, match=r'share=0.6 is not in 0 < share <= 0.5'):
    run([0.1, 0.2], share=0.6)
  with pytest.raises(ValueError, match=r"leaf 'hyper/rate' has shape \(1,\)"):
    search.pbt(
      descend, jnp.square, jnp.ones(2), {'rate': jnp.ones(1)}, rounds=1, key=KEY
    )
  with pytest.raises(ValueError, match="'rate' must be floats"):
    run([1, 2])
  with pytest.raises(ValueError, match=r'loss returns shape \(3,\)'):
    search.pbt(
      lambda x, h, key: x, lambda x: x, jnp.ones((2, 3)), jnp.ones(2),
      rounds=1, key=KEY,
    )  # fmt: skip
