"""Columns of several models side by side."""

import jax.numpy as jnp

from wsl import types


def join(parts: types.Array) -> types.Array:
  """Joins the columns of ``[T, ..., m, k]`` to ``[..., m, T k]``."""
  parts = jnp.moveaxis(parts, 0, -2)
  return parts.reshape(*parts.shape[:-2], -1)


def separate(x: types.Array, parts: int) -> types.Array:
  """Inverts ``join``."""
  x = x.reshape(*x.shape[:-1], parts, -1)
  return jnp.moveaxis(x, -2, 0)
