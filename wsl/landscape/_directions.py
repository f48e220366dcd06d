"""Inner products and lengths of directions in parameter space."""

import jax
import jax.numpy as jnp

from wsl import tree, types


def inner(x: types.Tree, y: types.Tree) -> types.Array:
  """Returns the inner product of two trees of floats, in the widest dtype."""
  pairs = list(zip(jax.tree.leaves(x), jax.tree.leaves(y)))
  dtype = tree.wide_dtype(*(a for a, _ in pairs))
  if not pairs:
    return jnp.zeros((), dtype)
  return total([jnp.sum(a * b).astype(dtype) for a, b in pairs])


def total(parts: list[types.Array]) -> types.Array:
  """Adds small arrays of one shape in a loop.

  XLA would copy a plain sum of L parts into every kernel that uses it, so that
  a program compiles in a time that grows as L^2.
  """
  if len(parts) == 1:
    return parts[0]
  stack = jnp.stack(parts)
  return jax.lax.fori_loop(1, len(parts), lambda i, x: x + stack[i], stack[0])


def scaled(x: types.Tree, factor: types.Array) -> types.Tree:
  """Returns a tree times a number."""
  return jax.tree.map(lambda a: a * factor.astype(a.dtype), x)


def unit(x: types.Tree) -> types.Tree:
  """Returns a tree of length 1; zeros stay zero."""
  square = inner(x, x)
  return scaled(
    x, jax.lax.rsqrt(jnp.where(square > 0, square, jnp.ones_like(square)))
  )


def wide_floats(params: types.Params) -> types.Tree:
  """Returns float leaves in float32 or wider, None at other leaves."""
  params = jax.tree.map(jnp.asarray, params)
  return jax.tree.map(
    lambda x: tree.wide(x) if tree.is_float(x) else None, params
  )
