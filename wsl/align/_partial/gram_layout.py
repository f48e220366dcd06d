"""The axes of a leaf as those of its linear map: groups, inputs, outputs."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _permutation, _symmetry
from wsl.align._partial import entry_sources


class Layout(NamedTuple):
  """A leaf as matrices ``[groups, d, m]``, and the sources of their entries.

  Attributes:
    axes: the input axes of the leaf; they are flattened to d.
    others: the other axes; they are flattened to ``groups`` times m.
    rows: the axes of ``groups`` and the input axes, with their factors.
    groups: source of the groups; each has its own inputs.
    inputs: source of d.
    outputs: source of m.
  """

  axes: tuple[int, ...]
  others: tuple[int, ...]
  rows: _blocks.Layout
  groups: entry_sources.Source
  inputs: entry_sources.Source
  outputs: entry_sources.Source


def bias_like_leaves(
  grams: dict[str, types.Gram], symmetry: _symmetry.Symmetry
) -> set[str]:
  """Returns the leaves with the axes of a map's outputs, such as biases."""
  outputs = {
    tuple(x for i, x in enumerate(symmetry.layout(name)) if i not in g.axes)
    for name, g in grams.items()
  }
  return {name for name in symmetry.leaf if symmetry.layout(name) in outputs}


def of_leaf(
  name: str,
  gram: types.Gram,
  symmetry: _symmetry.Symmetry,
  counts: entry_sources.UnitCounts,
) -> Layout:
  """Returns the layout of a leaf, by the groups and inputs of its Gram matrix.

  Raises:
    ValueError: if the Gram matrix does not fit the leaf, or its groups
      are not a product of whole factors.
  """
  axes = symmetry.layout(name)
  others = tuple(i for i in range(len(axes)) if i not in gram.axes)
  inputs = entry_sources.product(
    [entry_sources.of_axis(axes[i], counts) for i in gram.axes]
  )
  groups, d, _ = gram.matrix.shape
  if d != 2 * inputs.sizes[0]:
    raise ValueError(
      f"pleas: the Gram matrix of '{name}' has shape {gram.matrix.shape}, "
      f'expected [..., {2 * inputs.sizes[0]}, {2 * inputs.sizes[0]}]: pass '
      'stats.joint_gram(apply_fn, [a, b], ...)'
    )
  # One dimension for each factor, where an axis is a product of factors.
  dims = [parts for i in others for parts in _dimensions(axes[i])]
  sources = [entry_sources.of_axis(parts, counts) for parts in dims]
  sizes = [source.sizes[0] for source in sources]
  cuts = [i for i in range(len(dims) + 1) if math.prod(sizes[:i]) == groups]
  if not cuts and all(source.same for source in sources):
    # The groups divide a factor. All output axes are those of both models, so
    # they are flattened and cut into (groups, rest) as if these were factors.
    blocks = _symmetry.Factor('groups', groups, 'groups of inputs')
    each = _symmetry.Factor('', math.prod(sizes) // groups, 'one group')
    dims, cuts = [(_blocks.Part((f,)),) for f in (blocks, each)], [1]
    sources = [entry_sources.of_axis(parts, counts) for parts in dims]
  if not cuts:
    raise ValueError(
      f"pleas: the {groups} groups of inputs of '{name}' are not a product of "
      f'its factors of sizes {sizes}: keep their groups merged'
    )
  leading = tuple(dims[: cuts[0]])
  return Layout(
    gram.axes,
    others,
    (*leading, *(axes[i] for i in gram.axes)),
    entry_sources.product(sources[: cuts[0]]),
    inputs,
    entry_sources.product(sources[cuts[0] :]),
  )


def _dimensions(
  parts: tuple[_blocks.Part, ...],
) -> list[tuple[_blocks.Part, ...]]:
  """Returns a dimension for each factor, if an axis is a product."""
  if len(parts) > 1:
    return [parts]
  inner = [parts[0].parts] if parts[0].parts else []
  return [*((_blocks.Part((f,)),) for f in parts[0].factors), *inner]


def permute_gram(
  gram: types.Gram, layout: Layout, order: _permutation.Permutation
) -> types.Array:
  """Permutes the rows and columns of Gram matrices like units of the models.

  Args:
    gram: ``matrix [groups, 2 d, 2 d]`` of the models before the permutation.
    layout: the layout of the leaf.
    order: the permutation of both models.

  Returns:
    ``[groups, 2 d, 2 d]``, in float32 or wider.
  """
  matrix = tree.wide(gram.matrix)
  found = _row_order(layout, order)
  if found is None:
    return matrix
  groups, inputs = found
  rows, columns = inputs[:, :, None], inputs[:, None, :]
  return matrix[groups[:, None, None], rows, columns]


def permute_means(
  mean: types.Array, layout: Layout, order: _permutation.Permutation
) -> types.Array:
  """Permutes the mean inputs ``[groups, 2 d]`` like units of the models."""
  mean = tree.wide(mean)
  found = _row_order(layout, order)
  if found is None:
    return mean
  groups, inputs = found
  return mean[groups[:, None], inputs]


def _row_order(
  layout: Layout, order: _permutation.Permutation
) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns the indices of groups and inputs; ``None`` if nothing moves."""
  groups, d = layout.groups.sizes[0], layout.inputs.sizes[0]
  written = [_blocks.flatten(parts) for parts in layout.rows]
  factors = {f for segments, _ in written for seg in segments for f in seg}
  used = {f.name for f in factors}
  if not any(
    _moves_units(table) for name, table in order.items() if name in used
  ):
    return None
  # Permute an index array to obtain the row order.
  shape = [sum(part.size for part in parts) for parts in layout.rows]
  indices = {'indices': jnp.arange(groups * d).reshape(shape)}
  axes = tuple(
    tuple(tuple(f.name for f in seg) for seg in segments)
    for segments, _ in written
  )
  runs = tuple(
    _symmetry.Interleaved('indices', i, *span)
    for i, (_, spans) in enumerate(written)
    for span in spans
  )
  symmetry = _symmetry.Symmetry(
    tuple(factors), (('indices', axes),), interleaved=runs
  )
  tables = {group.name: order[group.name] for group in symmetry.groups}
  moved = _permutation.permute(indices, tables, symmetry=symmetry)['indices']
  moved = np.asarray(moved).reshape(groups, d)
  # All inputs of a group come from one group. The second half of a joint Gram
  # matrix is B's, permuted in the same way.
  return moved[:, 0] // d, np.concatenate([moved % d, d + moved % d], 1)


def _moves_units(table: types.Array) -> bool:
  """Returns whether a permutation table moves any unit."""
  return bool((np.asarray(table) != np.arange(table.shape[-1])).any())
