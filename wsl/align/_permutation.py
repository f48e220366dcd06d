r"""Permutations of a model: apply, invert, compose, draw.

A permutation is a dict from the name of each group to a table of indices
``[*outer sizes, size]``. The permuted model gathers from the original,

.. math:: (\pi\theta)[i, j] = \theta[\sigma(i), \tau_i(j)],

so a table :math:`\tau` that depends on an outer factor is indexed by the NEW
outer index i.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _symmetry

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
    permutation: a table of indices ``[*outer sizes, size]`` for each group.
    symmetry: the symmetry of the model.

  Returns:
    The permuted model.

  Raises:
    ValueError: if the permutation or the model belongs to another symmetry.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 2)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> permute({'a': jnp.asarray([1.0, 2.0])}, {'a:0': jnp.asarray([1, 0])},
    ...         symmetry=symmetry)['a'].tolist()
    [2.0, 1.0]
  """
  _symmetry.check_leaves(symmetry, tree.named(params), 'permute: params')
  check_permutation(permutation, symmetry, 'permute: permutation')

  def one(name: str, x: types.Array) -> types.Array:
    plan = symmetry.plan(name)
    used = {f.name for axis in plan for segment in axis for f in segment}
    tables = {g: table for g, table in permutation.items() if g in used}
    if not tables:
      return x
    return tree.apply_kernel(_permute, x, tables, plan=tree.Static(plan))

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


def random(symmetry: _symmetry.Symmetry, key: types.PRNGKey) -> Permutation:
  """Draws a permutation uniformly from the group.

  Args:
    symmetry: the group.
    key: a random key; the key of each group is folded in by its name.

  Returns:
    A permutation.

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

  return {name: draw(name, x) for name, x in identity(symmetry).items()}


def compose(
  first: Permutation,
  second: Permutation,
  *,
  symmetry: _symmetry.Symmetry,
) -> Permutation:
  r"""Returns the composition of two permutations.

  .. math:: (\pi_2 \circ \pi_1)\,\theta = \pi_2 (\pi_1 \theta)

  Args:
    first: the permutation that is applied first.
    second: the permutation that is applied to the result.
    symmetry: the symmetry of both.

  Returns:
    The composition.

  Raises:
    ValueError: if one of them belongs to another symmetry.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> turn = {'a:0': jnp.asarray([1, 2, 0])}
    >>> compose(turn, turn, symmetry=symmetry)['a:0'].tolist()
    [2, 0, 1]
  """
  check_permutation(first, symmetry, 'compose: first')
  check_permutation(second, symmetry, 'compose: second')

  def one(group: _symmetry.Factor) -> types.Array:
    # Let s, t be the tables of the outer factor and of this group. The first
    # permutation gives y[i, j] = x[s1(i), t1(i, j)], the second
    # z[i, j] = y[s2(i), t2(i, j)] = x[s1(s2(i)), t1(s2(i), t2(i, j))]: reindex
    # the rows of t1 by s2, then take its columns at t2.
    table = _reindex(first[group.name], group, second, symmetry)
    return jnp.take_along_axis(table, second[group.name], axis=-1)

  return {group.name: one(group) for group in symmetry.groups}


def invert(
  permutation: Permutation, *, symmetry: _symmetry.Symmetry
) -> Permutation:
  r"""Returns the inverse permutation, :math:`\pi^{-1}`.

  Args:
    permutation: a permutation.
    symmetry: its symmetry.

  Returns:
    Its inverse.

  Raises:
    ValueError: if it belongs to another symmetry.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> invert({'a:0': jnp.asarray([1, 2, 0])},
    ...        symmetry=symmetry)['a:0'].tolist()
    [2, 0, 1]
  """
  check_permutation(permutation, symmetry, 'invert: permutation')
  inverse: Permutation = {}
  # y[i, j] = x[s(i), t(i, j)] gives x[s(i), k] = y[i, t_i^-1(k)]. The rows of
  # t^-1 are indexed by i; the inverse of s, computed before, reindexes them.
  for group in symmetry.groups:  # outer groups first
    table = jnp.argsort(permutation[group.name], axis=-1).astype(np.int32)
    inverse[group.name] = _reindex(table, group, inverse, symmetry)
  return inverse


def check_permutation(
  permutation: Permutation, symmetry: _symmetry.Symmetry, argument: str
) -> None:
  """Checks that a permutation belongs to a symmetry.

  Args:
    permutation: a permutation.
    symmetry: a symmetry.
    argument: the name of the function and its argument in the message.

  Raises:
    ValueError: if a group is missing, unknown or its table of another shape.
  """
  names = [group.name for group in symmetry.groups]
  for name in permutation:
    if name not in names:
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


def _permute(
  x: types.Array, tables: Permutation, *, plan: _symmetry.Plan
) -> types.Array:
  """Permutes one leaf block by block."""
  blocks = _blocks.to_blocks(x, plan)
  return _blocks.from_blocks(
    [_gather(*block, tables) for block in blocks], plan
  )


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


def _reindex(
  table: types.Array,
  group: _symmetry.Factor,
  permutation: Permutation,
  symmetry: _symmetry.Symmetry,
) -> types.Array:
  """Permutes the outer indices of a table ``[*outer sizes, size]``."""
  for i, outer in enumerate(group.outer):
    if outer in permutation:
      nest = (*symmetry.factor[outer].outer, outer)
      places = [group.outer.index(name) for name in nest]
      index = _blocks.spread(permutation[outer], places, table.ndim)
      table = jnp.take_along_axis(table, index, axis=i)
  return table
