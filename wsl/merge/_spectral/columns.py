"""Columns of several models side by side, and their polar factors."""

import jax.numpy as jnp

from wsl import tree, types


def join(parts: types.Array) -> types.Array:
  """Joins the columns of ``[T, ..., m, k]`` to ``[..., m, T k]``."""
  parts = jnp.moveaxis(parts, 0, -2)
  return parts.reshape(*parts.shape[:-2], -1)


def separate(x: types.Array, parts: int) -> types.Array:
  """Inverts ``join``."""
  x = x.reshape(*x.shape[:-1], parts, -1)
  return jnp.moveaxis(x, -2, 0)


def polar_factors(
  u: types.Array, v: types.Array
) -> tuple[types.Array, types.Array]:
  """Returns the polar factors of ``[..., m, k]`` and ``[..., n, k]``."""
  left = tree.polar(u)
  return left, tree.polar(tree.after(v, left))
