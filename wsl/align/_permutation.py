r"""Permutations of a model: apply, invert, compose, draw.

A permutation is a dict from the name of each group to a table of indices
``[*outer sizes, size]``. The permuted model gathers from the original,

.. math:: (\pi\theta)[i, j] = \theta[\sigma(i), \tau_i(j)],

so a table :math:`\tau` that depends on an outer factor is indexed by the NEW
outer index i.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _arguments, _blocks, _symmetry
from wsl.align._gauges import draws, elements, short_names, table_values

Permutation: TypeAlias = dict[str, types.Array]


def permute(
  params: types.Params,
  permutation: Permutation,
  *,
  symmetry: _symmetry.Symmetry,
) -> types.Params:
  r"""Permutes the units of a model without a change of its function.

  .. math:: (\pi\theta)[i, j, \dots] = \theta[\pi_1(i), \pi_2(j), \dots]

  Args:
    params: a model, in memory or on demand.
    permutation: a table of indices ``[*outer sizes, size]`` for each group;
      and of actions, by name, signs or scales ``[*outer sizes, size]``,
      rotations or linear maps ``[*outer sizes, size, size]``, phases ``[*sizes
      of over, 2]``, applied after the permutation.
    symmetry: the symmetry of the model.

  Returns:
    The permuted model, in its dtypes.

  Raises:
    ValueError: if the permutation or the model belongs to another symmetry, a
      table holds no permutation or no element of its action, or an action is on
      a leaf of integers.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 2)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> permute({'a': jnp.asarray([1.0, 2.0])}, {'a:0': jnp.asarray([1, 0])},
    ...         symmetry=symmetry)['a'].tolist()
    [2.0, 1.0]
  """
  _arguments.check_leaves(symmetry, tree.named(params), 'permute: params')
  check_permutation(permutation, symmetry, 'permute: permutation')
  gauge = elements.with_duals(symmetry, permutation, jnp)

  def one(name: str, x: types.Array) -> types.Array:
    plan = symmetry.plan(name)
    used = {f.name for axis in plan for segment in axis for f in segment}
    tables = {g: table for g, table in permutation.items() if g in used}
    acts = elements.acts_of(symmetry, name, permutation)
    keys = [k for a in acts for k in (a.name, elements.dual_of(a.name))]
    tables |= {key: gauge[key] for key in keys if key in gauge}
    if not tables:
      return x
    if acts and not tree.is_float(x):
      raise ValueError(
        f"permute: leaf '{name}' is {x.dtype}, and '{acts[0].name}' would be "
        'rounded: quantised? dequantise first'
      )
    narrow = [a.name for a in acts if jnp.iscomplexobj(tables[a.name])]
    if narrow and not tree.is_complex(x):
      raise ValueError(
        f"permute: '{narrow[0]}' is complex, and leaf '{name}' is {x.dtype}"
      )
    layout, acts, tables = short_names.rename(
      symmetry.layout(name), acts, tables
    )
    return tree.apply_kernel(
      _permute,
      x,
      tables,
      layout=tree.Static(layout),
      acts=tree.Static(acts),
    )

  return tree.map_named(one, params)


def identity(symmetry: _symmetry.Symmetry) -> Permutation:
  """Returns the identity permutation."""
  shapes = {g.name: symmetry.table_shape(g.name) for g in symmetry.groups}
  tables = {
    name: np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape)
    for name, shape in shapes.items()
  }
  # jnp.asarray would compile a program for each shape.
  return {name: jax.device_put(table) for name, table in tables.items()}


def random(
  symmetry: _symmetry.Symmetry,
  key: types.PRNGKey,
  *,
  gauges: Sequence[str] = _symmetry.GAUGES,
) -> Permutation:
  """Draws an element of the group: permutations uniformly, and actions.

  Scales are log-normal, rotations and angles uniform, linear maps well
  conditioned.

  Args:
    symmetry: the group.
    key: a random key; the key of each group is folded in by its name.
    gauges: the kinds of maps to draw; ``('permutation',)`` for permutations
      only.

  Returns:
    A table for each group and action; without ``'permutation'`` groups have the
    identity.

  Example:
    >>> import jax
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 4)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> sorted(random(symmetry, jax.random.key(0))['a:0'].tolist())
    [0, 1, 2, 3]
  """

  def draw(name: str, start: types.Array) -> types.Array:
    name_key = tree.name_key(key, name)
    return jax.random.permutation(name_key, start, axis=-1, independent=True)

  _arguments.check_kinds(gauges, 'random')
  moved = identity(symmetry)
  if 'permutation' in gauges:
    moved = {name: draw(name, x) for name, x in moved.items()}
  actions = tuple(a for a in symmetry.actions if a.kind in gauges)
  symmetry = dataclasses.replace(symmetry, actions=actions)
  normals = lambda name, shape: normal(tree.name_key(key, name), shape)
  return moved | draws.tables(symmetry, normals)


@functools.partial(jax.jit, static_argnums=(1, 2))
def normal(
  key: types.PRNGKey, shape: tuple[int, ...], dtype: Any = float
) -> types.Array:
  """Draws the numbers of ``jax.random.normal``, along one axis.

  XLA takes 2 to 6 times as long to compile threefry's counters of an array of
  several short axes.
  """
  return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def check_permutation(
  permutation: Mapping[str, types.Array],
  symmetry: _symmetry.Symmetry,
  argument: str,
) -> None:
  """Checks that a permutation belongs to a symmetry.

  Args:
    permutation: a permutation.
    symmetry: a symmetry.
    argument: the name of the function and its argument in the message.

  Raises:
    ValueError: if a group is missing, unknown or its table of another shape, or
      is no permutation or no element of the action.
  """
  names = [group.name for group in symmetry.groups]
  if not isinstance(permutation, Mapping):
    raise ValueError(
      f'{argument} is a {type(permutation).__name__}: give a dict of tables'
    )
  for name, table in permutation.items():
    if name in symmetry.action:
      wanted = symmetry.action_shape(name)
      if np.shape(table) != wanted:
        raise ValueError(
          f"{argument} of action '{name}' has shape {np.shape(table)}, "
          f'expected {wanted}: it was made for another symmetry'
        )
      table_values.check(argument, name, table, symmetry.action[name])
    elif name not in names:
      raise ValueError(
        f"{argument} has a group '{name}' that the symmetry does not have"
        f'{tree.nearest(name, names)}: it was made for another symmetry'
      )
  for name in names:
    if name not in permutation:
      raise ValueError(
        f"{argument} lacks the group '{name}': it was made for another symmetry"
      )
    shape, wanted = np.shape(permutation[name]), symmetry.table_shape(name)
    if shape != wanted:
      raise ValueError(
        f"{argument} of group '{name}' has shape {shape}, expected "
        f'{wanted}: it was made for another symmetry'
      )
    table_values.check(argument, name, permutation[name], None)


def _permute(
  x: types.Array,
  tables: Permutation,
  *,
  layout: _blocks.Layout,
  acts: tuple[elements.Act, ...],
) -> types.Array:
  """Permutes one leaf block by block, then applies actions."""
  blocks = []
  cut = _blocks.to_blocks(x, layout)
  for block, factors, here in elements.with_acts(cut, acts):
    block = _gather(block, factors, tables)
    if here:
      wide = elements.act(tree.wide(block), factors, here, tables)
      block = wide.astype(x.dtype)
    blocks.append(block)
  return _blocks.from_blocks(blocks, layout)


def _gather(
  block: types.Array, factors: _blocks.Factors, tables: Permutation
) -> types.Array:
  """Permutes a block ``[*sizes of factors]``, outer factors first.

  Once outer axes are in the new order, a table can be indexed by them.
  """
  names = [factor.name for factor in factors]
  for i in sorted(range(len(factors)), key=lambda i: len(factors[i].outer)):
    if names[i] in tables:
      places = [*map(names.index, factors[i].outer), i]
      index = _blocks.spread(tables[names[i]], places, block.ndim)
      block = jnp.take_along_axis(block, index, axis=i)
  return block
