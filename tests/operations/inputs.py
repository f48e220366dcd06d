"""Inputs of the operations: a small network, and random arrays.

``mlp`` is the function of a user. It multiplies at the precision ``MARK``, by
which its products are told from those of the library.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types

Operation: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]
Table: TypeAlias = dict[str, Operation]
T, N, H, M = 3, 12, 6, 2
KEY = jax.random.key(0)
# The precision of the user's products.
MARK = 'high'
LABELS = np.arange(N, dtype=np.int32) % M


def dense(kernel: types.Array, x: types.Array) -> types.Array:
  return jnp.matmul(x, kernel, precision=MARK)


def features(p: Any, x: Any) -> tuple[types.Array, types.Array]:
  """Returns the hidden activations and the logits."""
  h = jax.nn.relu(dense(p['a'], x) + p['b'][None])
  return h, dense(p['c'], h)


def mlp(p: Any, x: Any) -> types.Array:
  return features(p, x)[1]


def normal(dtype: Any, *shape: int, seed: int = 0) -> types.Array:
  draw = np.random.default_rng([seed, *shape]).normal(size=shape)
  return jnp.asarray(draw, dtype)


def params(dtype: Any, seed: int) -> Any:
  shapes = {'a': (4, H), 'b': (H,), 'c': (H, M)}
  return {n: normal(dtype, *s, seed=seed) for n, s in shapes.items()}


def slope(fn: Callable[..., Any]) -> Callable[..., Any]:
  """Returns the gradient of the sum of squares of a function's results."""

  def total(x: Any, *rest: Any) -> Any:
    squares = [jnp.sum(jnp.square(y)) for y in jax.tree.leaves(fn(x, *rest))]
    return sum(squares[1:], squares[0])

  return jax.grad(total)
