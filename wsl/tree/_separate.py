"""Rows of an array in buffers of their own, so that equal kernels stay equal.

A compiler compiles a kernel once that a program contains several times. XLA,
however, fuses the slice ``x[i]`` into the kernel that uses it, which then
differs for each i, and on a GPU it merges kernels that share an operand into
one, whose code grows with their number. Both are prevented here, at the price
of a copy of each row.
"""

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types

# Entries of an array that may be copied for each leaf.
_SMALL = 1 << 12
# Results of one kernel.
_AT_ONCE = 32


def separate(rows: types.Array, places: Sequence[int]) -> list[types.Array]:
  """Returns ``rows[i]`` for some i; in a trace, each in a buffer of its own.

  Args:
    rows: a small array of integers or floats, ``[n, ...]``.
    places: the indices of the rows; one may occur several times.

  Returns:
    A row for each place.

  Example:
    >>> rows = jnp.asarray([[1, 2], [3, 4]])
    >>> [x.tolist() for x in jax.jit(lambda x: separate(x, (1, 0, 1)))(rows)]
    [[3, 4], [1, 2], [3, 4]]
  """
  if not isinstance(rows, jax.core.Tracer) or len(places) == 1:
    return [rows[i] for i in places]
  return _copies(rows, tuple(places))


def at_leaves(value: Any, tree: types.Tree) -> types.Tree:
  """Returns a tree with one value at each leaf.

  A small array that is traced, such as a weight for each model, is copied: on a
  GPU the kernels of leaves that share one would be merged. Numbers, and arrays
  that are known, do no harm.

  Args:
    value: any value.
    tree: any pytree.

  Returns:
    A tree of ``tree``'s structure.

  Example:
    >>> at_leaves(0.5, {'a': 1, 'b': [2]})
    {'a': 0.5, 'b': [0.5]}
  """
  leaves, treedef = jax.tree.flatten(tree)
  return jax.tree.unflatten(treedef, _repeat(value, leaves))


def hyper_for_leaves(
  hyper: dict[str, Any], leaves: Sequence[Any]
) -> list[dict[str, Any]]:
  """Returns the hyperparameters of a kernel for each of several leaves.

  Args:
    hyper: hyperparameters by name, copied as by ``at_leaves``.
    leaves: the leaves.
  """
  each = {name: _repeat(value, leaves) for name, value in hyper.items()}
  return [{name: each[name][i] for name in each} for i in range(len(leaves))]


def _repeat(value: Any, leaves: Sequence[Any]) -> list[Any]:
  """Repeats a value; copies it if it is a small array that is traced."""
  small = (
    isinstance(value, jax.core.Tracer)
    and value.ndim > 0
    and value.size <= _SMALL
    and (_is_float(value) or jnp.issubdtype(value.dtype, np.integer))
  )
  if not small or len(leaves) < 2:
    return [value] * len(leaves)
  return _copies(value[None], (0,) * len(leaves))


@functools.partial(jax.jit, static_argnums=1)
def _copies(rows: types.Array, places: tuple[int, ...]) -> list[types.Array]:
  """Copies rows of integers or floats; one for each place."""
  return (_copy_floats if _is_float(rows) else _copy)(rows, places)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _copy_floats(
  rows: types.Array, places: tuple[int, ...]
) -> list[types.Array]:
  """Copies rows of floats by their bits."""
  integers = rows.view(f'int{8 * rows.dtype.itemsize}')
  return [x.view(rows.dtype) for x in _copy(integers, places)]


@_copy_floats.defjvp
def _derivatives(places: tuple[int, ...], given: Any, tangents: Any) -> Any:
  """Differentiates copies of rows, which are rows."""
  return _copy_floats(*given, places), [tangents[0][i] for i in places]


def _copy(rows: types.Array, places: tuple[int, ...]) -> list[types.Array]:
  """Copies rows of integers by reductions.

  Each result of a reduction of several operands has a buffer of its own, and
  XLA fuses no such result into the kernels that use it. An operand is a row
  twice, as a reduction along an axis of length 1 would be removed.
  """
  zero = np.zeros((), rows.dtype)
  either = lambda xs, ys: [x | y for x, y in zip(xs, ys)]
  found: list[types.Array] = []
  for start in range(0, len(places), _AT_ONCE):
    some = places[start : start + _AT_ONCE]
    twice = [jnp.broadcast_to(rows[i], (2, *rows.shape[1:])) for i in some]
    found += jax.lax.reduce(twice, [zero] * len(some), either, (0,))
  return found


def _is_float(x: Any) -> bool:
  """Returns True for real floats."""
  return jnp.issubdtype(x.dtype, np.floating)
