r"""Soft permutations: doubly stochastic matrices in place of indices.

.. math:: (P\theta)[u, i] = \sum_{o, j} P[u, o]\, C_{uo}[i, j]\, \theta[o, j]

A group that depends on outer groups has a matrix for each pair (u, o) of their
new and old indices, so the unit matching of two heads is independent of that of
all other heads. The map is linear in the model and in the matrices of any one
group. For permutation matrices only the pairs (u, sigma(u)) contribute, and the
map is ``permute``.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _assignment, _blocks, _permutation, _symmetry

Matrices: TypeAlias = dict[str, types.Array]


def free_outer(
  group: _symmetry.Factor, symmetry: _symmetry.Symmetry
) -> tuple[str, ...]:
  """Returns the outer factors of a group that are not pinned."""
  return tuple(o for o in group.outer if not symmetry.factor[o].pinned)


def shape(
  group: _symmetry.Factor, symmetry: _symmetry.Symmetry
) -> tuple[int, ...]:
  """Returns the shape of a group's matrices, ``[*outer, *free outer, n, n]``.

  The outer axes index the new model, the free outer axes the old one; a pinned
  outer factor has the same index in both.
  """
  old = [symmetry.factor[o].size for o in free_outer(group, symmetry)]
  return (*symmetry.table_shape(group.name)[:-1], *old, group.size, group.size)


def harden(
  permutation: _permutation.Permutation,
  *,
  symmetry: _symmetry.Symmetry,
  dtype: types.Tree = np.float32,
) -> Matrices:
  """Returns the matrices of a permutation, the same for every old outer index.

  Args:
    permutation: for each group its indices, ``[*outer, n]``.
    symmetry: the symmetry it belongs to.
    dtype: of the matrices.

  Returns:
    For each group ``[*outer, *free outer, n, n]``, of zeros and ones.
  """

  def matrices_of(group: _symmetry.Factor) -> types.Array:
    full = shape(group, symmetry)
    hot = jax.nn.one_hot(permutation[group.name], group.size, dtype=dtype)
    skip = tuple(range(len(group.outer), len(full) - 2))
    return jnp.broadcast_to(jnp.expand_dims(hot, skip), full)

  return {group.name: matrices_of(group) for group in symmetry.groups}


def apply(
  params: types.Params,
  matrices: Matrices,
  *,
  symmetry: _symmetry.Symmetry,
) -> types.Params:
  """Applies soft permutations: a sum over the old index of every factor.

  Args:
    params: a model, or a dict of some of its leaves by name; integer leaves
      are not changed.
    matrices: for each group ``[*outer, *free outer, n, n]``.
    symmetry: the symmetry of the model.

  Returns:
    The model; products are taken in the dtype of the matrices.
  """

  def apply_to_leaf(name: str, x: types.Array) -> types.Array:
    layout = symmetry.layout(name)
    moved = groups_of(symmetry.plan(name))
    if not moved or not jnp.issubdtype(x.dtype, jnp.floating):
      return x
    wide = x.astype(next(iter(matrices.values())).dtype)
    blocks = [contract(*b, matrices) for b in _blocks.to_blocks(wide, layout)]
    return _blocks.from_blocks(blocks, layout).astype(x.dtype)

  return tree.map_named(apply_to_leaf, params)


def round(
  matrices: Matrices,
  *,
  symmetry: _symmetry.Symmetry,
  solver: _assignment.Solver,
) -> _permutation.Permutation:
  """Rounds matrices to a permutation, by one assignment problem for each.

  Args:
    matrices: for each group ``[*outer, *free outer, n, n]``.
    symmetry: the symmetry they belong to.
    solver: an assignment solver, gains ``[..., n, n]`` to indices ``[..., n]``.

  Returns:
    A permutation.
  """
  indices = {name: np.asarray(solver(m)) for name, m in matrices.items()}
  outer_of = {group.name: group.outer for group in symmetry.groups}
  tables = descend(indices, outer_of=outer_of)
  # jnp.asarray would compile a program for each shape.
  return {name: jax.device_put(table) for name, table in tables.items()}


def descend(
  found: Mapping[str, np.ndarray], *, outer_of: Mapping[str, tuple[str, ...]]
) -> dict[str, np.ndarray]:
  """Selects the tables at the outer pairs (u, sigma(u)), outer groups first.

  Args:
    found: for each group indices ``[*outer, *free outer, n]``, or matrices
      ``[*outer, *free outer, n, n]``.
    outer_of: for each group the factors on which its table depends, outer
      groups first; those that are groups themselves are free.

  Returns:
    For each group ``[*outer, n]`` or ``[*outer, n, n]``.
  """
  # Take along each free old outer axis the index sigma(u), which can itself
  # depend on further outer indices.
  tables: dict[str, Any] = {}
  for name, outer in outer_of.items():  # outer groups first
    table: Any = np.asarray(found[name])
    new = len(outer)
    for other in outer:
      if other not in outer_of:
        continue
      places = [outer.index(o) for o in (*outer_of[other], other)]
      index: Any = _blocks.spread(tables[other], places, table.ndim, np)
      table = np.take_along_axis(table, index, new).squeeze(new)
    matrix = table.dtype.kind == 'f'
    tables[name] = table if matrix else table.astype(np.int32, copy=False)
  return tables


def groups_of(plan: _symmetry.Plan) -> list[str]:
  """Returns the names of the groups that occur in a leaf."""
  factors = [f for axis in plan for segment in axis for f in segment]
  return [factor.name for factor in factors if not factor.pinned]


def contract(
  block: types.Array, factors: _blocks.Factors, matrices: Matrices
) -> types.Array:
  """Applies the matrices to a block ``[*sizes of factors]``."""
  # One einsum, with a label for the old index of every factor and another one
  # for the new index of moved factors: a matrix has the labels
  # [*new outer, *old free outer, new, old].
  names = [factor.name for factor in factors]
  old = list(range(len(names)))
  moved = [name in matrices for name in names]
  new = [i + len(names) if moved[i] else i for i in old]
  operands: list[types.Tree] = [block, old]
  for i, factor in enumerate(factors):
    if moved[i]:
      outer = [names.index(name) for name in factor.outer]
      free = [old[j] for j in outer if moved[j]]
      operands += [matrices[factor.name]]
      operands += [[*(new[j] for j in outer), *free, new[i], old[i]]]
  return jnp.einsum(*operands, new, precision='highest')


def matched_leaves(
  params: types.Params, symmetry: _symmetry.Symmetry, leaves: types.Leaves
) -> tuple[str, ...]:
  """Returns the names of the chosen float leaves that contain a group."""
  chosen = tree.named(tree.select(params, leaves))
  return tuple(
    name
    for name, x in tree.named(params).items()
    if chosen[name]
    and jnp.issubdtype(x.dtype, jnp.floating)
    and groups_of(symmetry.plan(name))
  )


def matrix_dtype(*models: types.Params) -> np.dtype:
  """Returns the dtype of matrices for some models: float32 or wider."""
  leaves = jax.tree.leaves(models)
  real = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
  return tree.wide_dtype(*real)
