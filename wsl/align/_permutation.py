r"""Permutations of a model: apply, invert, compose, draw.

A permutation is a dict: for each group of a symmetry its name and the indices
``[*outer sizes, size]`` by which the new model gathers from the old one,

.. math:: (\pi\theta)[i, j] = \theta[\sigma(i), \tau_i(j)],

where the table of a group that depends on outer factors is indexed by the NEW
outer index.
"""

from typing import TypeAlias
import zlib

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
  r"""Permutes the units of a model, which leaves its function unchanged.

  .. math:: (\pi\theta)[i, j, \dots] = \theta[\pi_1(i), \pi_2(j), \dots]

  Args:
    params: a model, in memory or on demand.
    permutation: for each group its indices, ``[*outer sizes, size]``.
    symmetry: the symmetry of the model.

  Returns:
    The model with its units in another order.

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
  check_permutation(permutation, symmetry)

  def one(name: str, x: types.Array) -> types.Array:
    plan = symmetry.plan(name)
    used = {f.name for axis in plan for segment in axis for f in segment}
    tables = {g: table for g, table in permutation.items() if g in used}
    if not tables:
      return x
    return tree.apply_kernel(_permute, x, tables, plan=tree.Static(plan))

  return tree.map_named(one, params)


def identity(symmetry: _symmetry.Symmetry) -> Permutation:
  """Returns the permutation that moves nothing."""
  shapes = {g.name: symmetry.table_shape(g.name) for g in symmetry.groups}
  return {
    name: jnp.broadcast_to(jnp.arange(shape[-1], dtype=np.int32), shape)
    for name, shape in shapes.items()
  }


def random(symmetry: _symmetry.Symmetry, key: types.PRNGKey) -> Permutation:
  """Draws a permutation uniformly from the group.

  Args:
    symmetry: the group.
    key: a random key; each group folds in its own name.

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
    name_key = jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))
    return jax.random.permutation(name_key, start, axis=-1, independent=True)

  return {name: draw(name, x) for name, x in identity(symmetry).items()}


def compose(
  first: Permutation,
  second: Permutation,
  *,
  symmetry: _symmetry.Symmetry,
) -> Permutation:
  r"""Returns the permutation that does one, then the other.

  .. math:: (\pi_2 \circ \pi_1)\,\theta = \pi_2 (\pi_1 \theta)

  Args:
    first: what is done first.
    second: what is done to the result.
    symmetry: the symmetry that both belong to.

  Returns:
    One permutation.

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
  check_permutation(first, symmetry)
  check_permutation(second, symmetry)

  def one(group: _symmetry.Factor) -> types.Array:
    # The first table is indexed by the indices in between.
    table = _reindex(first[group.name], group, second, symmetry)
    return jnp.take_along_axis(table, second[group.name], axis=-1)

  return {group.name: one(group) for group in symmetry.groups}


def invert(
  permutation: Permutation, *, symmetry: _symmetry.Symmetry
) -> Permutation:
  r"""Returns the permutation that undoes another, :math:`\pi^{-1}`.

  Args:
    permutation: a permutation.
    symmetry: the symmetry it belongs to.

  Returns:
    Its inverse.

  Raises:
    ValueError: if it belongs to another symmetry.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 3)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> turn = {'a:0': jnp.asarray([1, 2, 0])}
    >>> invert(turn, symmetry=symmetry)['a:0'].tolist()
    [2, 0, 1]
  """
  check_permutation(permutation, symmetry)
  inverse: Permutation = {}
  for group in symmetry.groups:  # outer ones come first
    table = jnp.argsort(permutation[group.name], axis=-1).astype(np.int32)
    inverse[group.name] = _reindex(table, group, inverse, symmetry)
  return inverse


def check_permutation(
  permutation: Permutation, symmetry: _symmetry.Symmetry
) -> None:
  """Checks that a permutation belongs to a symmetry.

  Raises:
    ValueError: naming the first group that does not fit.
  """
  names = [group.name for group in symmetry.groups]
  for name in permutation:
    if name not in names:
      raise ValueError(
        f"the permutation has a group '{name}' that the symmetry does not have"
        f'{tree.nearest(name, names)}: it was made for another symmetry'
      )
  for name in names:
    if name not in permutation:
      raise ValueError(
        f"the permutation lacks the group '{name}': it was made for another "
        'symmetry'
      )
    shape, wanted = np.shape(permutation[name]), symmetry.table_shape(name)
    if shape != wanted:
      raise ValueError(
        f"the permutation of group '{name}' has shape {shape}, expected "
        f'{wanted}: it was made for another symmetry'
      )


def _permute(
  x: types.Array, tables: Permutation, *, plan: _symmetry.Plan
) -> types.Array:
  blocks = _blocks.to_blocks(x, plan)
  return _blocks.join([_gather(*block, tables) for block in blocks], plan)


def _gather(
  block: types.Array, factors: _blocks.Factors, tables: Permutation
) -> types.Array:
  """Permutes a block ``[*sizes of factors]``, outer factors first."""
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
  """Permutes the outer indices of a table ``[*outer, size]``."""
  for i, outer in enumerate(group.outer):
    if outer in permutation:
      nest = (*symmetry.factor[outer].outer, outer)
      places = [group.outer.index(name) for name in nest]
      index = _blocks.spread(permutation[outer], places, table.ndim)
      table = jnp.take_along_axis(table, index, axis=i)
  return table
