"""Statistics of the inputs of products, laid out in the weights' order.

A product contracts some axes of a weight with axes of a value. The other axes
of the value are rows. Axes that both operands keep, batch axes, select a block
of the weight: each block is a linear map with separate inputs. Statistics
are computed in the order in which the weight is stored, whatever order the
function uses, so that they fit the leaf.
"""

from collections.abc import Sequence
from typing import Any

from jax.extend import core
import jax.numpy as jnp

from wsl import jaxprs, types
from wsl.stats._linear_maps import layout, records, views


def dot(
  record: records.Record,
  eqn: core.JaxprEqn,
  view: views.View,
  x: types.Array,
  y: types.Array,
  side: int,
) -> views.View:
  """Records a ``dot_general`` whose operand number ``side`` is the weight.

  Args:
    record: receives the statistic.
    eqn: the equation.
    view: the view of the weight.
    x: the other operand.
    y: the result.
    side: 0 or 1.

  Returns:
    The view of the weight's output axes in the result; other axes are rows.
  """
  contract, batch = eqn.params['dimension_numbers']
  # The result of dot_general has the axes [batch, free of x, free of y].
  done = (*contract[side], *batch[side])
  shared = [view.dims[i] for i in batch[side]]
  free = [atoms for i, atoms in enumerate(view.dims) if i not in done]
  start = len(shared) + (len(free) if side == 0 else 0)
  rows = [_row(y, start + i) for i in range(y.ndim - len(shared) - len(free))]
  outputs = view._replace(
    dims=(*shared, *free, *rows) if side == 0 else (*shared, *rows, *free)
  )
  _capture(
    record,
    view,
    x,
    y,
    outputs,
    batch=list(zip(batch[1 - side], batch[side])),
    contract=list(zip(contract[1 - side], contract[side])),
  )
  return outputs


def convolution(
  record: records.Record,
  eqn: core.JaxprEqn,
  view: views.View,
  x: types.Array,
  y: types.Array,
) -> views.View | None:
  """Records a ``conv_general_dilated`` whose kernel is the weight.

  A convolution is the product of the kernel ``[window * channels, features]``
  and the patches of the image.

  Args:
    record: receives the statistic.
    eqn: the equation.
    view: the view of the kernel.
    x: the image.
    y: the result.

  Returns:
    The view of the kernel's output axes in the result; ``None`` if the groups
    of features do not divide the view.
  """
  p = eqn.params
  spec, groups = p['dimension_numbers'], p['feature_group_count']
  out, channel, *kernel = spec.rhs_spec
  blocks = views.regroup(
    view.dims[out], (groups, jaxprs.shape_of(eqn.invars[1])[out] // groups)
  )
  if p['batch_group_count'] != 1 or blocks is None:
    record.note(view, 'a convolution with groups that cannot be followed')
    return None
  patches = layout.patches(
    jnp.transpose(x, spec.lhs_spec),
    [jaxprs.shape_of(eqn.invars[1])[k] for k in kernel],
    [jaxprs.shape_of(eqn.outvars[0])[k] for k in spec.out_spec[2:]],
    eqn,
  )
  n, c, *rest = patches.shape
  patches = patches.reshape(n, groups, c // groups, *rest)
  # Patches are now [n, group, channel, out, kernel, out, kernel, ...]. The
  # output axis of the weight is [group, in_group]: group stays in its place, a
  # batch axis of the product, and in_group becomes the last axis.
  dims = list(view.dims)
  dims[out], in_group = blocks
  pairs = [(4 + 2 * i, k) for i, k in enumerate(kernel)]
  features = spec.out_spec[1]
  outputs = view._replace(
    dims=tuple(
      dims[out] + in_group if i == features else _row(y, i)
      for i in range(y.ndim)
    )
  )
  _capture(
    record,
    view._replace(dims=(*dims, in_group)),
    patches,
    y,
    outputs,
    batch=[(1, out)],
    contract=[(2, channel), *pairs],
  )
  return outputs


def added(
  record: records.Record, product: views.View, leaf: views.View
) -> None:
  """Records that a leaf is added to a product, if it is added as a bias.

  A bias has one entry for each output unit: in the sum, its axes are the output
  axes of the weight, in the same order, and it is constant along rows.

  Args:
    record: receives the pair of leaves.
    product: the view of a weight's output axes in its product.
    leaf: the view of the leaf in the other summand.
  """
  # Rows have negative axes. A dimension of units and rows together would need
  # the leaf to be compared entry by entry; it is left out.
  ours = [_nontrivial(atoms) for atoms in product.dims]
  units = [[a for a in atoms if a.axis >= 0] for atoms in ours]
  theirs = [_nontrivial(atoms) for atoms in leaf.dims]
  mixed = any(u and len(u) < len(atoms) for u, atoms in zip(units, ours))
  same = _ranked(product.stacked, units) == _ranked(leaf.stacked, theirs)
  if same and not mixed:
    pair = product.leaf, leaf.leaf
    record.added[pair] = record.added.get(pair, 0) + 1


def _ranked(
  stacked: Sequence[tuple[int, views.Atoms]],
  dims: Sequence[Sequence[views.Atom]],
) -> list[Any]:
  """Renumbers the axes that occur as 0, 1, ..., to compare two leaves."""
  runs = [*(_nontrivial(atoms) for _, atoms in stacked), *dims]
  axes = sorted({a.axis for run in runs for a in run})
  ranks = [[a._replace(axis=axes.index(a.axis)) for a in run] for run in runs]
  return [[depth for depth, _ in stacked], ranks]


def _row(y: types.Array, i: int) -> views.Atoms:
  """Returns an atom for a row axis: a negative axis, which sorts first."""
  return (views.Atom(i - y.ndim, -1, y.shape[i]),)


def _capture(
  record: records.Record,
  view: views.View,
  x: types.Array,
  y: types.Array,
  outputs: views.View,
  *,
  batch: list[tuple[int, int]],
  contract: list[tuple[int, int]],
) -> None:
  """Records a product, or notes why its statistic does not fit the weight.

  Args:
    record: receives the statistic.
    view: the view of the weight.
    x: the other operand.
    y: the result.
    outputs: the view of the weight's output axes in ``y``.
    batch: pairs of axes (of x, of the weight) that are batch axes.
    contract: pairs of axes (of x, of the weight) that are contracted.
  """
  # Three conditions make the statistic fit the leaf as [groups, d]: it has
  # inputs, each stored axis is either contracted or kept as a whole, and batch
  # axes are the leading ones of the axes that are kept.
  blocks = views.flatten([view.dims[i] for _, i in batch])
  inputs = views.flatten([view.dims[i] for _, i in contract])
  if not inputs:
    record.note(view, 'a product that contracts none of its axes')
    return
  stacked = views.flatten([atoms for _, atoms in view.stacked])
  others = sorted({*views.flatten(view.dims), *stacked} - {*inputs})
  axes = tuple(sorted({atom.axis for atom in inputs}))
  if any(atom.axis in axes for atom in others):
    record.note(view, 'a product that contracts a part of one axis')
    return
  leading = _nontrivial([*stacked, *sorted(blocks)])
  if leading != _nontrivial(others)[: len(leading)]:
    record.note(view, 'a batched product over an axis that is not leading')
    return
  rows = layout.rows(
    x, [i for i, _ in batch], [i for i, _ in contract], blocks, inputs
  )
  groups, count, _ = rows.shape
  results = layout.results(y, outputs, groups)
  record.times[view.leaf] = record.times.get(view.leaf, 0) + 1
  use = records.Use(view.leaf, axes, groups, view.stacked)
  record.add(use, record.measure(rows, results), count)


def _nontrivial(atoms: Sequence[views.Atom]) -> list[views.Atom]:
  """Drops atoms of size 1, whose positions are arbitrary."""
  return [atom for atom in atoms if atom.size > 1]
