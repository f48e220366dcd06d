"""Sums over every entry of a tree: the statistics of a whole model.

Each leaf is reduced on the device and read back as a small array. The partial
results are added on the host, in float64 or int64, so that a model of any size
loses no precision between its leaves.
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


def total(
  kernel: Callable[..., Any], tree: types.Tree, *rest: types.Tree, **hyper: Any
) -> Any:
  """Sums ``kernel(leaf, *rest, **hyper)`` over the leaves of a tree.

  Concrete leaves and leaves on demand are reduced one at a time, and the parts
  are added on the host, in float64 or int64. In a trace the parts stay on the
  device, in the kernel's dtype.

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
  """Reduces one leaf; a concrete result is read back as float64 or int64."""
  part = _on_demand.recompute(_on_demand.Computed(kernel, leaves, hyper))
  if isinstance(part, jax.core.Tracer):
    return part
  wide = np.int64 if jnp.issubdtype(part.dtype, jnp.integer) else np.float64
  return np.asarray(part, wide)


def sum_entries(x: types.Array) -> types.Array:
  """Sums all axes but the first, ``[S, ...] -> [S]``, in the dtype of ``x``.

  XLA reduces in parallel and by a tree of partial sums, so that the float32 sum
  of 33.5 million squares is within 3e-8 of the exact one, and shards are not
  gathered.

  Args:
    x: ``[S, ...]``.

  Returns:
    The sums, ``[S]``.

  Example:
    >>> import jax.numpy as jnp
    >>> sum_entries(jnp.ones((2, 3, 4))).tolist()
    [12.0, 12.0]
  """
  return jnp.sum(x, axis=tuple(range(1, x.ndim)), dtype=x.dtype)


def norm(tree: types.Tree, *, ord: int = 2) -> Any:
  r"""Returns the norm of a whole model, Euclidean by default.

  .. math:: \|\theta\|_2 = \sqrt{\textstyle\sum_p |\theta_p|^2}, \qquad
    \|\theta\|_1 = \textstyle\sum_p |\theta_p|

  Args:
    tree: any pytree of float or complex leaves, in memory or on demand.
    ord: 2, or 1 for the sum of magnitudes.

  Returns:
    A scalar: float64 on the host, or traced.

  Raises:
    ValueError: if ``ord`` is neither 1 nor 2.

  Example:
    >>> import jax.numpy as jnp
    >>> float(norm({'a': jnp.asarray([3.0]), 'b': jnp.asarray([[4.0]])}))
    5.0
    >>> float(norm({'a': jnp.asarray([3.0]), 'b': jnp.asarray([[4.0]])}, ord=1))
    7.0
  """
  if ord == 1:
    return total(_magnitudes, tree)
  if ord != 2:
    raise ValueError(f'norm(ord={ord}): expected 1 or 2')
  square = total(_square, tree)
  return jnp.sqrt(square) if isinstance(square, jax.Array) else square**0.5


def _square(x: types.Array) -> types.Array:
  return sum_entries(_numerics.square(_numerics.wide(x))[None])[0]


def _magnitudes(x: types.Array) -> types.Array:
  return sum_entries(jnp.abs(_numerics.wide(x))[None])[0]
