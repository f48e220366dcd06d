"""Steps of Adam that have derivatives, for merges that minimise a loss."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from wsl import types

# Decay rates and epsilon, the defaults of PyTorch.
_MEAN, _SQUARE, _EPS = 0.9, 0.999, 1e-8


class Moments(NamedTuple):
  """Running averages of slopes and of their squares."""

  mean: types.Array
  square: types.Array


def start(x: types.Array) -> Moments:
  """Returns the moments before the first step."""
  return Moments(jnp.zeros_like(x), jnp.zeros_like(x))


def step(
  slope: types.Array, moments: Moments, i: Any
) -> tuple[types.Array, Moments]:
  """Returns the direction of step i, 0 being the first, and new moments."""
  mean = _MEAN * moments.mean + (1 - _MEAN) * slope
  square = _SQUARE * moments.square + (1 - _SQUARE) * jnp.square(slope)
  count = jnp.asarray(i + 1).astype(slope.dtype)
  unbiased = square / (1 - _SQUARE**count)
  # The derivative of a square root is infinite at 0.
  some = unbiased > 0
  root = jnp.where(some, jnp.sqrt(jnp.where(some, unbiased, 1)), 0)
  direction = mean / (1 - _MEAN**count) / (root + _EPS)
  return direction, Moments(mean, square)
