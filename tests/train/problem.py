"""A least-squares problem."""

import jax
import jax.numpy as jnp
import numpy as np


def squares(params, batch, key):
  x, y = batch
  del key
  return jnp.mean(jnp.square(x @ params['w'] - y))


def noisy(params, batch, key):
  x, y = batch
  x = x + 0.1 * jax.random.normal(key, x.shape, x.dtype)
  return squares(params, (x, y), key)


def data(count=20, seed=0, dtype=jnp.float64):
  x = jax.random.normal(jax.random.key(seed), (count, 3), dtype)
  w = jnp.array([1.0, -2.0, 0.5], dtype)
  return (x, x @ w), w


def zero(dtype=jnp.float64):
  return {'w': jnp.zeros(3, dtype)}


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, rtol=1e-12):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol), a, b)
