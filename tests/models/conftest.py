from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope='session')
def draw_params() -> Callable:
  """Draws every leaf of a model from a normal, faster than its own init."""

  def draw(model, x, dtype=jnp.float64, seed=0):
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(seed)
    return jax.tree.map(
      lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), dtype),
      variables['params'],
    )

  return draw
