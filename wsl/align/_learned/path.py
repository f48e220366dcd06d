"""Models on the straight path between two models moved by gauge elements."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.align import _blocks, _soft, _symmetry
from wsl.align._gauges import elements


def point(
  fixed: types.Params,
  moving: types.Params,
  weight: types.Scalar,
  *,
  like: types.Params,
) -> types.Params:
  r"""Returns the model at one place of the line between two models.

  .. math:: (1 - \lambda)\, \theta_f + \lambda\, \theta_m

  Args:
    fixed: a model.
    moving: another one, of the same structure.
    weight: lambda.
    like: a model of the dtypes to return; its integer leaves are taken.

  Returns:
    The model; computed in float32 or wider.
  """

  def between(x: types.Array, y: types.Array, like: types.Array) -> types.Array:
    if not jnp.issubdtype(like.dtype, jnp.floating):
      return like
    x, y = tree.widen(x, y)
    w = jnp.asarray(weight, x.dtype)
    return ((1 - w) * x + w * y).astype(like.dtype)

  return jax.tree.map(between, fixed, moving, like)


def endpoint(
  params: types.Params,
  matrices: _soft.Matrices,
  tables: Mapping[str, types.Array],
  *,
  symmetry: _symmetry.Symmetry,
) -> types.Params:
  """Moves a model by permutation matrices, then by actions.

  Args:
    params: the model; leaves that are not of floats stay.
    matrices: for some groups ``[*outer, *free outer, n, n]``.
    tables: for some actions their tables, with the duals of linear maps.
    symmetry: the symmetry, in which the other groups are pinned.

  Returns:
    The model; leaves that move are in the dtype of the tables.
  """

  def move(name: str, x: types.Array) -> types.Array:
    layout = symmetry.layout(name)
    acts = elements.acts_of(symmetry, name, tables)
    moved = [g for g in _soft.groups_of(symmetry.plan(name)) if g in matrices]
    if not (acts or moved) or not jnp.issubdtype(x.dtype, jnp.floating):
      return x
    dtype = next(iter([*tables.values(), *matrices.values()])).dtype
    blocks = []
    cut = _blocks.to_blocks(x, layout)
    for block, factors, here in elements.with_acts(cut, acts):
      block = _soft.contract(block.astype(dtype), factors, matrices)
      blocks.append(elements.act(block, factors, here, dict(tables)))
    return _blocks.from_blocks(blocks, layout)

  return tree.map_named(move, params)
