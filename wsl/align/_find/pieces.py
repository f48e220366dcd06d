"""Rules for arrays in pieces, whose other axes differ from piece to piece.

A fused projection ``[..., 3 * heads * units]`` that is reshaped to
``[..., 3, heads, units]`` has three pieces along one axis: queries, keys and
values. Each has its own axes of heads and units, since values need not be
permuted as keys are; later operations decide. A primitive without a rule here
gets one set of axes: its operands' pieces are tied to each other.
"""

from collections.abc import Sequence
import math

from jax.extend import core

from wsl import jaxprs
from wsl.align._find import axis_facts, axis_tree
from wsl.align._find.rules import (
  elementwise,
  indexing,
  reshape,
  shape,
  table,
)


def apply(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Value] | None:
  """Applies an equation piece by piece.

  Returns:
    The results; ``None`` if no operand has pieces or the primitive mixes them.
  """
  name = eqn.primitive.name
  if name == 'reshape':
    return _reshape(facts, eqn, args[0]) if len(args) == 1 else None
  holders = [arg for arg in args if arg.pieces]
  if not holders:
    return None
  if name in ('dynamic_slice', 'gather', 'slice', 'split', 'unstack'):
    return _select(eqn, args) if args[0].pieces else None
  dim = _dim_after(eqn, holders[0].dim)
  if dim is None or any(arg.dim != holders[0].dim for arg in holders):
    return None
  # One column of axes for each operand, one row for each piece: the rule of
  # the primitive is applied to each row, as to separate arrays.
  columns = [_cut_like(facts, arg, holders[0]) for arg in args]
  rows: list[axis_facts.Axes] = []
  for axes in zip(*columns):
    result = table.RULES[name](facts, eqn, [axis_facts.Value(x) for x in axes])
    if result is None or isinstance(result[0], axis_facts.Value):
      return None
    rows.append(result[0])
  return [axis_facts.from_pieces(dim, rows)]


def _dim_after(eqn: core.JaxprEqn, dim: int) -> int | None:
  """Returns the position of an axis in the result; ``None`` if it is lost."""
  name, p = eqn.primitive.name, eqn.params
  if name in elementwise.ELEMENTWISE and len(eqn.outvars) == 1:
    return dim
  if name == 'transpose':
    return tuple(p['permutation']).index(dim)
  if name == 'broadcast_in_dim':
    return p['broadcast_dimensions'][dim]
  if name in elementwise.REDUCTIONS and dim not in p['axes']:
    return dim - sum(i < dim for i in p['axes'])
  if name == 'squeeze' and dim not in p['dimensions']:
    return dim - sum(i < dim for i in p['dimensions'])
  return None


def _cut_like(
  facts: axis_facts.Facts, arg: axis_facts.Value, model: axis_facts.Value
) -> Sequence[axis_facts.Axes]:
  """Cuts an operand into the pieces of another; returns the axes of each."""
  sizes = [piece[model.dim].size for piece in model.pieces]
  if [piece[arg.dim].size for piece in arg.pieces] == sizes:
    return arg.pieces
  axes = facts.operand(arg)
  i = model.dim
  if not axes or axes[i].size == 1:
    return [axes] * len(sizes)
  return [
    (
      *axes[:i],
      shape.part(facts, axes, i, a, b, 'in pieces along it'),
      *axes[i + 1 :],
    )
    for a, b in shape.ranges(sizes)
  ]


def _select(
  eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Value] | None:
  """Applies slice, split, unstack or a known lookup along the axis of pieces.

  Returns:
    The results; ``None`` if one of them would hold a part of a piece.
  """
  arg = args[0]
  p, dim = eqn.params, arg.dim
  size = arg.axes[dim].size
  drop = eqn.primitive.name == 'unstack'
  if eqn.primitive.name == 'slice':
    full = jaxprs.shape_of(eqn.invars[0])
    others = [
      stop - start == n or i == dim
      for i, (start, stop, n) in enumerate(
        zip(p['start_indices'], p['limit_indices'], full)
      )
    ]
    if not all(others) or set(p['strides'] or (1,)) != {1}:
      return None
    ranges = [(p['start_indices'][dim], p['limit_indices'][dim])]
  elif eqn.primitive.name in ('dynamic_slice', 'gather'):
    found = indexing.taken(eqn, args)
    if found is None or found.axis != dim:
      return None
    ranges, drop = [(found.start, found.stop)], found.dropped
  elif p['axis'] != dim:
    return None
  elif eqn.primitive.name == 'split':
    ranges = shape.ranges(p['sizes'])
  else:
    ranges = [(k, k + 1) for k in range(size)]
  taken = [_between(arg, *limits) for limits in ranges]
  if any(pieces is None for pieces in taken):
    return None
  values = [axis_facts.from_pieces(dim, pieces) for pieces in taken if pieces]
  values = [_drop_pieces(value) for value in values]
  if drop:
    rest = lambda x: (*x[:dim], *x[dim + 1 :])
    return [axis_facts.Value(rest(value.axes)) for value in values]
  return values


def _between(
  arg: axis_facts.Value, start: int, stop: int
) -> list[axis_facts.Axes] | None:
  """Returns the pieces in a range of indices; ``None`` if it cuts a piece."""
  taken, at = [], 0
  for piece in arg.pieces:
    end = at + piece[arg.dim].size
    if start <= at and end <= stop:
      taken.append(piece)
    elif start < end and at < stop:
      return None
    at = end
  return taken


def _drop_pieces(value: axis_facts.Value) -> axis_facts.Value:
  """Drops the pieces of a value if all have the same other axes."""
  same = all(
    axis_tree.find(x) is axis_tree.find(y) or i == value.dim
    for piece in value.pieces
    for i, (x, y) in enumerate(zip(value.axes, piece))
  )
  return axis_facts.Value(value.axes) if same else value


def _reshape(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, arg: axis_facts.Value
) -> list[axis_facts.Value] | None:
  """Reshapes piece by piece, or turns the segments of an axis into pieces.

  Returns:
    The result; ``None`` if the major axis of a piece does not stay whole.
  """
  if eqn.params['dimensions'] is not None:
    return None
  old, new = jaxprs.shape_of(eqn.invars[0]), jaxprs.shape_of(eqn.outvars[0])
  if not arg.pieces:
    arg = arg._replace(axes=reshape.without_major(arg.axes, new))
    old = tuple(axis.size for axis in arg.axes)
  groups = reshape.independent_groups(old, new)
  if not arg.pieces:
    found = next((v for g in groups if (v := _as_pieces(arg, new, *g))), None)
    if found is None:
      return None
    facts.operand(arg)
    arg = found
  # Only the major axis of its group may change size from piece to piece: the
  # entries of a piece then stay contiguous within the group.
  before, after = next(g for g in groups if arg.dim in g[0])
  first = next(i for i in before if old[i] > 1)
  if first != arg.dim:
    return None
  dim = next(j for j in after if new[j] > 1)
  width = math.prod(new[j] for j in after if j > dim)
  rows = []
  for piece in arg.pieces:
    size = math.prod(piece[i].size for i in before)
    if size % width:
      return None
    sizes = [*new[:dim], size // width, *new[dim + 1 :]]
    row: list[axis_tree.Axis] = []
    for xs, ys in groups:
      axes = reshape.distribute([piece[i] for i in xs], [sizes[j] for j in ys])
      if axes is None:
        return None
      row += axes
    rows.append(tuple(row))
  return [_drop_pieces(axis_facts.from_pieces(dim, rows))]


def _as_pieces(
  arg: axis_facts.Value, new: Sequence[int], before: range, after: range
) -> axis_facts.Value | None:
  """Returns an array as pieces if a reshape splits a sum of segments."""
  axes = arg.axes
  wide = [i for i in before if axes[i].size > 1]
  if not wide or sum(new[j] > 1 for j in after) < 2:
    return None
  i = wide[0]  # the major axis of the group
  parts = axis_tree.segments(axes[i])
  if len(parts) < 2 or len(parts) > axis_tree.MANY:
    return None
  dim = next(j for j in after if new[j] > 1)
  inner = math.prod(axes[j].size for j in before if j > i)
  rows = reshape.whole_rows(
    parts, math.prod(new[j] for j in after if j > dim), inner
  )
  if rows is None:
    return None
  pieces = [(*axes[:i], row, *axes[i + 1 :]) for row in rows]
  return axis_facts.from_pieces(i, pieces)
