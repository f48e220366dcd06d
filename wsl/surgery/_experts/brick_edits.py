"""Operations on bricks: retrieve, update, grow."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.surgery._experts import bricks


def retrieve_brick(params: types.Params, brick: bricks.Brick) -> dict[str, Any]:
  """Returns the values of a brick.

  Args:
    params: a model, in memory or on demand.
    brick: slices by name of the leaf.

  Returns:
    For each leaf its slice, with the leading axes of the index first:
    ``[..., *leaf]`` with m entries along the axis.

  Raises:
    ValueError: if a leaf or an entry is not in the model.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import surgery
    >>> params = {'w': jnp.arange(6).reshape(2, 3), 'b': jnp.ones(3)}
    >>> brick = surgery.brick_of_entries(params, 'w', [[0, 2], [1, 0]], axis=1)
    >>> surgery.retrieve_brick(params, brick)['w'].tolist()
    [[[0, 2], [3, 5]], [[1, 0], [4, 3]]]
  """
  leaves = _leaves('retrieve_brick', params, brick)
  return {
    name: tree.apply_kernel(
      _take,
      leaves[name],
      part.entries,
      axis=tree.Static(part.axis),
      parts=tree.Static(part.parts),
    )
    for name, part in brick.items()
  }


def update_brick(
  params: types.Params, brick: bricks.Brick, values: Mapping[str, Any]
) -> types.Params:
  """Replaces the values of a brick; all other entries stay bit-identical.

  Args:
    params: a model, in memory or on demand.
    brick: slices by name of the leaf; the indices are one row ``[m]``.
    values: an array for each leaf of the brick, as of ``retrieve_brick``.

  Returns:
    The model with these values, in its own dtypes. Leaves that are not in the
    brick are the same arrays.

  Raises:
    ValueError: if leaves are missing, or values have other shapes.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import surgery
    >>> params = {'w': jnp.zeros((2, 3)), 'b': jnp.ones(3)}
    >>> brick = surgery.brick_of_entries(params, 'w', [2], axis=1)
    >>> update_brick(params, brick, {'w': jnp.ones((2, 1))})['w'].tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
  """
  leaves = _leaves('update_brick', params, brick)
  for name, part in brick.items():
    wanted = list(leaves[name].shape)
    wanted[part.axis] = part.parts * len(part.entries)
    _check_values('update_brick', name, part, values, wanted, leaves[name])

  def one(name: str, x: Any) -> Any:
    if name not in brick:
      return x
    part = brick[name]
    return tree.apply_kernel(
      _put,
      x,
      values[name],
      part.entries,
      axis=tree.Static(part.axis),
      parts=tree.Static(part.parts),
    )

  return tree.map_named(one, params)


def grow_brick(
  params: types.Params, brick: bricks.Brick, values: Mapping[str, Any]
) -> types.Params:
  """Appends units, layers or experts: values of a brick behind its axes.

  The function of the model does not change if the outgoing weights of the new
  units are zero.

  Args:
    params: a model, in memory or on demand.
    brick: slices by name of the leaf, of which only axes and parts are used.
    values: an array for each leaf of the brick, as of ``retrieve_brick`` with
      one row of indices, such as a copy of a part of this or another model.

  Returns:
    The larger model, in its own dtypes. Leaves that are not in the brick are
    the same arrays.

  Raises:
    ValueError: if leaves are missing, or values have other shapes.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import surgery
    >>> params = {'w': jnp.zeros((2, 3)), 'b': jnp.ones(3)}
    >>> brick = surgery.brick_of_entries(params, 'w', [0, 1], axis=1)
    >>> more = retrieve_brick(params, brick)
    >>> grow_brick(params, brick, more)['w'].shape
    (2, 5)
  """
  leaves = _leaves('grow_brick', params, brick)
  for name, part in brick.items():
    wanted = list(leaves[name].shape)
    given = np.shape(values[name]) if name in values else ()
    if len(given) == len(wanted) and given[part.axis] % part.parts == 0:
      wanted[part.axis] = given[part.axis]
    _check_values('grow_brick', name, part, values, wanted, leaves[name])

  def one(name: str, x: Any) -> Any:
    if name not in brick:
      return x
    part = brick[name]
    return tree.apply_kernel(
      _append,
      x,
      values[name],
      axis=tree.Static(part.axis),
      parts=tree.Static(part.parts),
    )

  return tree.map_named(one, params)


def _leaves(
  caller: str, params: types.Params, brick: bricks.Brick
) -> dict[str, Any]:
  """Returns the leaves by name, after a check that the brick's are there."""
  leaves = tree.named(params)
  for name, part in brick.items():
    if name not in leaves:
      hint = tree.nearest(name, list(leaves))
      raise ValueError(f"{caller}: the model has no leaf '{name}'{hint}")
    shape = leaves[name].shape
    size = shape[part.axis] if part.axis < len(shape) else 0
    largest = np.max(part.entries, initial=-1)
    if size % part.parts or largest >= size // part.parts:
      raise ValueError(
        f"{caller}: leaf '{name}' of shape {tuple(shape)} has no entry "
        f'{largest} on axis {part.axis} in {part.parts} parts'
      )
  return leaves


def _check_values(
  caller: str,
  name: str,
  part: bricks.BrickSlice,
  values: Mapping[str, Any],
  wanted: list[int],
  leaf: Any,
) -> None:
  """Checks the values of one leaf: their shape, and that its dtype has them."""
  if part.entries.ndim != 1:
    raise ValueError(
      f"{caller}: leaf '{name}' has a stack of bricks {part.entries.shape}: "
      'give one row of indices'
    )
  if name not in values:
    raise ValueError(f"{caller}: no values for leaf '{name}' of the brick")
  if list(np.shape(values[name])) != wanted:
    raise ValueError(
      f"{caller}: values of leaf '{name}' have shape "
      f'{np.shape(values[name])}, expected {tuple(wanted)}'
    )
  given = values[name]
  dtype = given.dtype if hasattr(given, 'dtype') else np.result_type(given)
  # Integers fit floats, and real numbers complex ones.
  order = [np.integer, np.floating, np.complexfloating]
  kinds = [
    next((i for i, k in enumerate(order) if jnp.issubdtype(d, k)), -1)
    for d in (dtype, leaf.dtype)
  ]
  if kinds[0] > kinds[1]:
    raise ValueError(
      f"{caller}: values of leaf '{name}' are {dtype}, the leaf is {leaf.dtype}"
    )
  if not tree.on_demand(given):
    cast = {name: jnp.asarray(given).astype(leaf.dtype)}
    remedy = f'the values overflow {leaf.dtype}'
    tree.check_finite(caller, cast, {name: given}, remedy=remedy)


def _in_parts(x: types.Array, axis: int, parts: int) -> types.Array:
  """Splits an axis into ``[parts, n]``, at ``axis`` and ``axis + 1``."""
  # Fused projections have the units once in each part of the axis.
  shape = (*x.shape[:axis], parts, -1, *x.shape[axis + 1 :])
  size = x.shape[axis] // parts
  return x.reshape(*shape[: axis + 1], size, *shape[axis + 2 :])


def _take(
  x: types.Array, index: types.Array, *, axis: int, parts: int
) -> types.Array:
  """Returns entries ``[..., m]`` of an axis; stacks of bricks come first."""
  y = jnp.take(_in_parts(x, axis, parts), index, axis=axis + 1)
  lead = index.ndim - 1
  places = range(axis + 1, axis + 1 + lead)
  y = jnp.moveaxis(y, tuple(places), tuple(range(lead)))
  at = lead + axis
  width = y.shape[at] * y.shape[at + 1]
  return y.reshape(*y.shape[:at], width, *y.shape[at + 2 :])


def _put(
  x: types.Array,
  values: types.Array,
  index: types.Array,
  *,
  axis: int,
  parts: int,
) -> types.Array:
  """Replaces entries of an axis."""
  place = (slice(None),) * (axis + 1) + (index,)
  values = _in_parts(values, axis, parts).astype(x.dtype)
  return _in_parts(x, axis, parts).at[place].set(values).reshape(x.shape)


def _append(
  x: types.Array, values: types.Array, *, axis: int, parts: int
) -> types.Array:
  """Appends entries behind each part of an axis."""
  values = values.astype(x.dtype)
  both = [_in_parts(a, axis, parts) for a in (x, values)]
  joined = jnp.concatenate(both, axis + 1)
  return joined.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
