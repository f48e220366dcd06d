"""Leaves as their Gram matrices see them: groups of maps, inputs, outputs."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _permutation, _symmetry
from wsl.align._partial import entry_sources


class Layout(NamedTuple):
  """A leaf as matrices ``[groups, d, m]``, and where their entries come from.

  Attributes:
    axes: the leaf's input axes; they are flattened to d.
    others: the other axes; they are flattened and cut into ``groups`` times m.
    rows: the axes of ``groups`` and the input axes, with their factors.
    groups: source of the groups, each with inputs of its own.
    inputs: source of d.
    outputs: source of m.
  """

  axes: tuple[int, ...]
  others: tuple[int, ...]
  rows: _symmetry.Plan
  groups: entry_sources.Source
  inputs: entry_sources.Source
  outputs: entry_sources.Source


def named(grams: types.Tree, params: types.Params) -> dict[str, types.Gram]:
  """Returns Gram matrices by the names of their leaves.

  Raises:
    ValueError: naming what is no Gram matrix of a leaf.
  """
  is_gram = lambda x: isinstance(x, types.Gram)
  by_name = tree.named(grams, is_leaf=is_gram)
  names = tree.named(params)
  for name, gram in by_name.items():
    if not is_gram(gram) or name not in names:
      raise ValueError(
        f"pleas: grams holds {type(gram).__name__} at '{name}', expected "
        'types.Gram at leaves of the model: give stats.joint_gram(...)'
      )
  return by_name


def like_outputs(
  grams: dict[str, types.Gram], symmetry: _symmetry.Symmetry
) -> set[str]:
  """Returns the leaves whose axes are those of some map's outputs: biases."""
  outputs = {
    tuple(axis for i, axis in enumerate(symmetry.leaf[name]) if i not in g.axes)
    for name, g in grams.items()
  }
  return {name for name, axes in symmetry.axes if axes in outputs}


def layout(
  name: str,
  gram: types.Gram,
  symmetry: _symmetry.Symmetry,
  split: entry_sources.Split,
) -> Layout:
  """Lays out a leaf as its Gram matrix sees it.

  Raises:
    ValueError: if the Gram matrix does not fit the leaf, or its groups cut
      through factors.
  """
  plan = symmetry.plan(name)
  others = tuple(i for i in range(len(plan)) if i not in gram.axes)
  inputs = entry_sources.product(
    [entry_sources.of_axis(plan[i], split) for i in gram.axes]
  )
  count, d, _ = gram.matrix.shape
  if d != 2 * inputs.sizes[0]:
    raise ValueError(
      f"pleas: the Gram matrix of '{name}' has shape {gram.matrix.shape}, "
      f'expected [..., {2 * inputs.sizes[0]}, {2 * inputs.sizes[0]}]: give '
      'stats.joint_gram(apply_fn, [a, b], ...)'
    )
  # One dimension for each factor, where an axis is a product of factors.
  dims = [
    segments
    for i in others
    for segments in (
      [((f,),) for f in plan[i][0]] if len(plan[i]) == 1 else [plan[i]]
    )
  ]
  sources = [entry_sources.of_axis(segments, split) for segments in dims]
  sizes = [source.sizes[0] for source in sources]
  cuts = [i for i in range(len(dims) + 1) if math.prod(sizes[:i]) == count]
  if not cuts and all(source.same for source in sources):
    # The groups cut through a factor, of which all units stay where they are.
    blocks = _symmetry.Factor('groups', count, 'groups of inputs')
    each = _symmetry.Factor('', math.prod(sizes) // count, 'one group')
    dims, cuts = [((blocks,),), ((each,),)], [1]
    sources = [entry_sources.of_axis(segments, split) for segments in dims]
  if not cuts:
    raise ValueError(
      f"pleas: the {count} groups of inputs of '{name}' are no product of its "
      f'factors, of sizes {sizes}: keep their groups merged'
    )
  leading = tuple(dims[: cuts[0]])
  return Layout(
    gram.axes,
    others,
    (*leading, *(plan[i] for i in gram.axes)),
    entry_sources.product(sources[: cuts[0]]),
    inputs,
    entry_sources.product(sources[cuts[0] :]),
  )


def reorder(
  gram: types.Gram, layout: Layout, order: _permutation.Permutation
) -> types.Array:
  """Returns the Gram matrices of models whose units are permuted.

  Args:
    gram: ``matrix [groups, 2 d, 2 d]`` of the models as they were.
    layout: the layout of the leaf.
    order: the permutation of both.

  Returns:
    ``[groups, 2 d, 2 d]``, in float32 or wider.
  """
  groups, d = layout.groups.sizes[0], layout.inputs.sizes[0]
  matrix = tree.wide(gram.matrix)
  used = {f.name for axis in layout.rows for seg in axis for f in seg}
  if not any(_moves(table) for name, table in order.items() if name in used):
    return matrix
  # Numbers go the way of the entries.
  shape = [sum(map(_symmetry.width, axis)) for axis in layout.rows]
  numbers = {'numbers': jnp.arange(groups * d).reshape(shape)}
  factors = {f for axis in layout.rows for seg in axis for f in seg}
  axes = tuple(
    tuple(tuple(f.name for f in seg) for seg in axis) for axis in layout.rows
  )
  symmetry = _symmetry.Symmetry(tuple(factors), (('numbers', axes),))
  tables = {group.name: order[group.name] for group in symmetry.groups}
  moved = _permutation.permute(numbers, tables, symmetry=symmetry)['numbers']
  moved = np.asarray(moved).reshape(groups, d)
  inputs = np.concatenate([moved % d, d + moved % d], 1)
  rows, columns = inputs[:, :, None], inputs[:, None, :]
  return matrix[(moved[:, 0] // d)[:, None, None], rows, columns]


def _moves(table: types.Array) -> bool:
  return bool((np.asarray(table) != np.arange(table.shape[-1])).any())
