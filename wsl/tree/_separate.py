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
from wsl.tree import _on_demand

# Entries of an array that may be copied for each leaf.
_SMALL = 1 << 12


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
  return _copies(rows, _one(_entry(rows)), tuple(places))


def at_leaves(value: Any, tree: types.Tree) -> types.Tree:
  """Returns a tree with one value at each leaf.

  A small array, such as a weight for each model, is copied in a trace: on a GPU
  the kernels of leaves that share one would be merged. A number does no harm.

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
  """Repeats a value; copies it if it is a small array in a trace."""
  small = (
    isinstance(value, (jax.Array, np.ndarray))
    and value.ndim > 0
    and value.size <= _SMALL
    and (_is_float(value) or jnp.issubdtype(value.dtype, np.integer))
  )
  if not small or len(leaves) < 2:
    return [value] * len(leaves)
  # XLA evaluates copies of what is known. An entry of a leaf is not.
  traced = next(filter(_is_number, _on_demand.tracers([leaves, value])), None)
  if traced is None:
    return [value] * len(leaves)
  rows, places = jnp.asarray(value)[None], (0,) * len(leaves)
  return _copies(rows, _one(_entry(traced)), places)


def _entry(x: types.Array) -> types.Array:
  """Returns the first entry of an array as an integer of 32 bits."""
  x = x[(0,) * x.ndim]
  if jnp.iscomplexobj(x):
    x = x.real
  if _is_float(x):
    x = x.view(f'int{8 * x.dtype.itemsize}')
  return x.astype(np.int32)


@functools.partial(jax.jit, static_argnums=2)
def _copies(
  rows: types.Array, steps: types.Array, places: tuple[int, ...]
) -> list[types.Array]:
  """Copies rows of integers or floats; ``steps`` is 1, unknown to XLA."""
  copy = _copy_floats if _is_float(rows) else _copy
  return copy(rows, steps, places)


def _copy(
  rows: types.Array, steps: types.Array, places: tuple[int, ...]
) -> list[types.Array]:
  """Copies rows of integers."""
  plainly = lambda rows, _: [rows[i] for i in places]
  branch = lambda rows, steps: _in_branch(rows, steps, places)
  same = len(set(places)) == 1  # no slices that differ
  return jax.lax.platform_dependent(
    rows,
    steps,
    cpu=plainly if same else branch,
    default=lambda rows, steps: _in_loop(rows, steps, places),
  )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _copy_floats(
  rows: types.Array, steps: types.Array, places: tuple[int, ...]
) -> list[types.Array]:
  """Copies rows of floats by their bits."""
  integers = rows.view(f'int{8 * rows.dtype.itemsize}')
  return [x.view(rows.dtype) for x in _copy(integers, steps, places)]


@_copy_floats.defjvp
def _derivatives(places: tuple[int, ...], given: Any, tangents: Any) -> Any:
  """Differentiates copies of rows, which are rows."""
  rows, steps = given
  return _copy_floats(rows, steps, places), [tangents[0][i] for i in places]


def _in_branch(
  rows: types.Array, steps: types.Array, places: Sequence[int]
) -> list[types.Array]:
  """Copies rows in the branch of a conditional, across which XLA fuses nothing.

  On a GPU the branch would become a select, and be fused.
  """
  taken = lambda rows: [rows[i] for i in places]
  zeros = lambda rows: [jnp.zeros_like(rows[0]) for _ in places]
  return jax.lax.cond(steps > 0, taken, zeros, rows)


def _in_loop(
  rows: types.Array, steps: types.Array, places: Sequence[int]
) -> list[types.Array]:
  """Copies rows in the only step of a loop, by kernels that are all equal."""
  shape, dtype = rows.shape[1:], rows.dtype
  rows = rows.reshape(len(rows), -1)
  # The place stands behind the entries of each copy, and the number of steps
  # is computed: XLA does not know them, so that it neither builds them into the
  # kernels, nor unrolls the loop. A place counts from 1, for XLA would take a
  # copy of equal entries, such as zeros, as one number.
  copies: Any = [np.zeros(rows.shape[1] + 1, dtype) for _ in places]
  for copy, place in zip(copies, places):
    copy[-1] = place + 1
  table = jnp.pad(rows, [(1, 0), (0, 0)])

  def copy_all(state: Any) -> Any:
    i, copies = state
    found = []
    for copy in copies:
      place = copy[-1:]
      row = jax.lax.dynamic_index_in_dim(
        table, place[0], keepdims=False, allow_negative_indices=False
      )
      found.append(jnp.concatenate([row, place]))
    return i + np.ones((), i.dtype), found

  _, copies = jax.lax.while_loop(
    lambda state: state[0] < steps, copy_all, (jnp.zeros_like(steps), copies)
  )
  return [copy[:-1].reshape(shape) for copy in copies]


def _is_float(x: Any) -> bool:
  """Returns True for real floats."""
  return jnp.issubdtype(x.dtype, np.floating)


def _is_number(x: types.Array) -> bool:
  """Returns True for an array with entries that are numbers, not keys."""
  return x.size > 0 and jnp.issubdtype(x.dtype, np.number)


def _one(entry: types.Array) -> types.Array:
  """Returns 1 as a function of an integer, of its dtype."""
  one = jnp.ones((), entry.dtype)
  return (entry | one) & one
