"""Columns of several models side by side, and their polar factors."""

import jax
import jax.numpy as jnp
import numpy as np

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
  return left, tree.polar(after(v, left))


def after(x: types.Array, before: types.Array) -> types.Array:
  """Returns x, which on a CPU is known only when another array is.

  LAPACK decomposes a batch by tasks of the thread pool in which the call waits.
  Independent calls at once, as many as there are threads, occupy all of them,
  and their tasks never start: decompositions have to follow each other.
  """
  if not before.size:
    return x
  entry = before[(0,) * before.ndim].astype(np.float32)
  # XLA folds no product with zero: it may be NaN.
  zero = jnp.where(jnp.isfinite(entry), 0 * entry, 0)
  zero = jax.lax.stop_gradient(zero).astype(x.dtype)
  return jax.lax.platform_dependent(
    x, zero, cpu=lambda x, zero: x + zero, default=lambda x, _: x
  )
