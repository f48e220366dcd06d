"""Sums over every entry of a tree: the statistics of a whole model.

A sum over all entries of a leaf is written in two ways. XLA's CPU backend emits
a scalar loop for a full reduction, but vectorises an elementwise loop: there,
blocks of a leaf are added into one block by a scan, four times as fast. On
other devices a plain sum is best, and shards without gathering.
"""

from collections.abc import Callable, Sequence
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _numerics, _on_demand

BLOCK = 8192


def total(
  kernel: Callable[..., Any], tree: types.Tree, *rest: types.Tree, **hyper: Any
) -> Any:
  """Adds up ``kernel(leaf, *rest, **hyper)`` over the leaves of a tree.

  Parts add up on the host, in float64 or int64, if leaves are concrete or on
  demand (each is read, counted and let go), and stay on the device in a trace.

  Args:
    kernel: a module-level function from a leaf to an array of fixed shape.
    tree: any pytree with at least one leaf.
    *rest: trees of which ``tree``'s structure is a prefix.
    **hyper: hyperparameters, as in ``tree.map``.

  Returns:
    The sum: a numpy array, or a traced array.

  Raises:
    ValueError: if the tree has no leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> count = lambda x: jnp.sum(x > 0)
    >>> int(total(count, {'a': jnp.ones(3), 'b': -jnp.ones(2)}))
    3
  """
  parts = jax.tree.map(
    lambda *leaves: _part(kernel, *leaves, **hyper), tree, *rest
  )
  if not jax.tree.leaves(parts):
    raise ValueError('total: the tree has no leaf to add up')
  return functools.reduce(operator.add, jax.tree.leaves(parts))


def greatest(
  kernel: Callable[..., Any], leaves: Sequence[Any], **hyper: Any
) -> Any:
  """Returns the elementwise maximum of a kernel over leaves."""
  parts = [_part(kernel, leaf, **hyper) for leaf in leaves]
  traced = any(isinstance(part, jax.core.Tracer) for part in parts)
  return functools.reduce(jnp.maximum if traced else np.maximum, parts)


def _part(kernel: Callable[..., Any], *leaves: Any, **hyper: Any) -> Any:
  part = _on_demand.recompute(_on_demand.Computed(kernel, leaves, hyper))
  if isinstance(part, jax.core.Tracer):
    return part
  wide = np.int64 if jnp.issubdtype(part.dtype, jnp.integer) else np.float64
  return np.asarray(part, wide)


def sum_entries(x: types.Array) -> types.Array:
  """Sums ``[S, ...] -> [S]``, in the dtype of ``x``."""
  return jax.lax.platform_dependent(x, cpu=_sum_by_blocks, default=_sum_plainly)


def _sum_plainly(x: types.Array) -> types.Array:
  return jnp.sum(x, axis=tuple(range(1, x.ndim)), dtype=x.dtype)


def _sum_by_blocks(x: types.Array) -> types.Array:
  head, tail = split_blocks(x)
  if not head.size:
    return _sum_plainly(tail)
  add = lambda i, acc: acc + jax.lax.dynamic_index_in_dim(head, i, 1, False)
  acc = jax.lax.fori_loop(
    0, head.shape[1], add, jnp.zeros_like(head, shape=(len(x), BLOCK))
  )
  return _sum_plainly(acc) + _sum_plainly(tail)


def split_blocks(x: types.Array) -> tuple[types.Array, types.Array]:
  """Splits ``[S, ...]`` into blocks ``[S, b, BLOCK]`` and the rest."""
  x = x.reshape(len(x), -1)
  whole = x.shape[1] // BLOCK * BLOCK
  return x[:, :whole].reshape(len(x), -1, BLOCK), x[:, whole:]


def norm(tree: types.Tree) -> Any:
  r"""Returns the Euclidean norm of a whole model.

  .. math:: \|\theta\| = \sqrt{\textstyle\sum_p \theta_p^2}

  Args:
    tree: any pytree of float leaves, on demand or not.

  Returns:
    A scalar: float64 on the host, or traced.

  Example:
    >>> import jax.numpy as jnp
    >>> float(norm({'a': jnp.asarray([3.0]), 'b': jnp.asarray([[4.0]])}))
    5.0
  """
  square = total(_square, tree)
  return jnp.sqrt(square) if isinstance(square, jax.Array) else square**0.5


def _square(x: types.Array) -> types.Array:
  x = _numerics.wide(x)[None]
  return sum_entries(x * x)[0]
