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
