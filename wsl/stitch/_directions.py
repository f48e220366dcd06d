"""Features as directions, in one dtype."""

import jax
import jax.numpy as jnp

from wsl import types


def widen(*arrays: types.ArrayLike) -> list[types.Array]:
  """Casts arrays to the widest of float32 and their own float dtypes."""
  found = [jnp.asarray(x) for x in arrays]
  double = any(x.dtype == jnp.float64 for x in found)
  return [jnp.asarray(x, jnp.float64 if double else jnp.float32) for x in found]


def unit(x: types.Array) -> types.Array:
  """Scales the last axis to norm 1; a zero vector stays, gradients too."""
  square = jnp.sum(jnp.square(x), -1, keepdims=True)
  apart = square > 0
  return x * jax.lax.rsqrt(jnp.where(apart, square, 1.0))
