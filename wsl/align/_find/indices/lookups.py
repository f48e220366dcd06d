"""Rules for gather and scatter at indices of an axis.

A gather at indices is the product of their one-hot encoding and the operand. So
the indexed axis is tied to the axis of the indices, and as in a product, an
axis may depend on the index of another one only if the lookup pairs both.
"""

from collections.abc import Sequence

from jax.extend import core
import numpy as np

from wsl import jaxprs
from wsl.align._find import axis_facts, axis_tree, known_constants, refinement
from wsl.align._find.rules import indexing

Results = list[axis_facts.Value] | None
_REASON = 'indexed by position'


def gather(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Looks up indices of an axis; the axis itself is not in the result."""
  operand, which = args
  if operand.components or (which.index_of is None and not which.components):
    return None
  dn, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
  x = facts.operand(operand._replace(index_of=None))
  batch = which.axes[:-1]
  taken = _tie_batching(
    x, batch, dn.operand_batching_dims, dn.start_indices_batching_dims
  )
  parts = components(which, dn.start_index_map)
  indexed = {}
  for i, part in parts.items():
    # A window as large as the axis starts at 0.
    if sizes[i] < x[i].size or not known_constants.is_zero(part.constant):
      indexed[i] = one_index(facts, x[i], part, batch, sizes[i])
  _pair(facts, x, batch, {**taken, **indexed})
  windows = []
  for i, axis in enumerate(x):
    if i in dn.operand_batching_dims:
      continue
    found = indexed.get(i)
    if i in dn.collapsed_slice_dims:
      if found is None and axis.size > 1:
        facts.pin_moved(x, i, 1, _REASON)
    elif sizes[i] == axis.size:
      windows.append(axis)
    elif found is None:
      windows.append(facts.pin_moved(x, i, sizes[i], _REASON))
    else:
      windows.append(axis_tree.Axis(1))
  ndim = len(jaxprs.shape_of(eqn.outvars[0]))
  rest, window = iter(batch), iter(windows)
  axes = tuple(
    next(window if i in dn.offset_dims else rest) for i in range(ndim)
  )
  return [axis_facts.Value(axes, index_of=operand.index_of)]


def scatter(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Writes or adds updates at indices of an axis of the array."""
  operand, which, updates = args
  if any(v.index_of or v.components for v in (operand, updates)):
    return None
  if which.index_of is None and not which.components:
    return None
  x, update = facts.operand(operand), facts.operand(updates)
  dn = eqn.params['dimension_numbers']
  batch = which.axes[:-1]
  rows = [j for j in range(len(update)) if j not in dn.update_window_dims]
  for j, axis in zip(rows, batch):
    refinement.tie(update[j], axis)
  taken = _tie_batching(
    x, batch, dn.operand_batching_dims, dn.scatter_indices_batching_dims
  )
  parts = components(which, dn.scatter_dims_to_operand_dims)
  indexed = {}
  for i, part in parts.items():
    if i in dn.inserted_window_dims:
      indexed[i] = one_index(facts, x[i], part, batch, 1)
    elif not known_constants.is_zero(part.constant):
      positions(facts, part, batch)
  # Rows that are also an axis of the array are not summed.
  kept = [*taken.values(), *indexed.values()]
  for j, axis in zip(rows, batch):
    if not any(axis is other for other in kept):
      if eqn.primitive.name == 'scatter':
        axis_tree.pin(axis, 'written in order')
      facts.index_dependent(update[j], update)
  _pair(facts, x, batch, {**taken, **indexed})
  by_position = [
    i
    for i in dn.inserted_window_dims
    if indexed.get(i) is None and x[i].size > 1
  ]
  indexing.tie_windows(facts, x, update, dn, by_position)
  return [axis_facts.Value(x)]


def dynamic_slice(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Takes one slice at an index of an axis; other axes are taken whole."""
  operand, *starts = args
  if operand.index_of or operand.components:
    return None
  x = facts.operand(operand)
  out: list[axis_tree.Axis] = []
  indexed: dict[int, axis_tree.Axis | None] = {}
  for i, size in enumerate(eqn.params['slice_sizes']):
    if size == x[i].size:
      out.append(x[i])
      continue
    found = one_index(facts, x[i], starts[i], (), size)
    if found is None:
      out.append(facts.pin_moved(x, i, size, _REASON))
    else:
      indexed[i] = found
      out.append(axis_tree.Axis(1))
  _pair(facts, x, (), indexed)
  return [axis_facts.Value(tuple(out))]


def components(
  which: axis_facts.Value, dims: Sequence[int]
) -> dict[int, axis_facts.Value]:
  """Returns the component of an index for each axis that it indexes."""
  parts = which.components or (which,)
  if len(parts) != len(dims):
    for part in parts:
      axis_facts.escape(part)
    return {}
  return dict(zip(dims, parts))


def one_index(
  facts: axis_facts.Facts,
  axis: axis_tree.Axis,
  part: axis_facts.Value,
  batch: Sequence[axis_tree.Axis],
  window: int,
) -> axis_tree.Axis | None:
  """Ties an axis to the one that a component of an index refers to.

  Args:
    facts: receives the constraints.
    axis: the axis that is indexed.
    part: indices of an axis, or a constant that counts along a batch axis.
    batch: the axes of the array of indices.
    window: the number of entries taken at each index.

  Returns:
    The other axis; ``None`` if the entries are used as positions.
  """
  index = part.index_of
  if index is not None and window == 1 and index.axis.size == axis.size:
    if index.escapes:
      axis_facts.escape(part)
    refinement.tie(axis, index.axis)
    return index.axis
  array = known_constants.array_of(part.constant)
  if window == 1 and array is not None:
    counts = np.arange(axis.size)
    for j, other in enumerate(batch):
      lines = np.moveaxis(array, j, -1)
      if lines.shape[-1] == axis.size and bool((lines == counts).all()):
        refinement.tie(axis, other)
        return other
  positions(facts, part, batch)
  return None


def positions(
  facts: axis_facts.Facts,
  part: axis_facts.Value,
  batch: Sequence[axis_tree.Axis],
) -> None:
  """Registers a component of an index whose entries are used as positions."""
  for a, b in zip(facts.operand(part), batch):
    refinement.tie(a, b)


def _tie_batching(
  x: axis_facts.Axes,
  batch: Sequence[axis_tree.Axis],
  dims: Sequence[int],
  index_dims: Sequence[int],
) -> dict[int, axis_tree.Axis]:
  """Ties batching axes of an operand to those of the indices; returns these."""
  taken = {i: batch[j] for i, j in zip(dims, index_dims)}
  for i, axis in taken.items():
    refinement.tie(x[i], axis)
  return taken


def _pair(
  facts: axis_facts.Facts,
  x: axis_facts.Axes,
  batch: Sequence[axis_tree.Axis],
  looked_up: dict[int, axis_tree.Axis | None],
) -> None:
  """Records a lookup as the product of an array and a one-hot encoding."""
  dims = [i for i, axis in looked_up.items() if axis is not None]
  if not dims:
    return
  facts.record(tuple(x[i] for i in dims))
  mine = [i for i in dims if not any(looked_up[i] is axis for axis in batch)]
  facts.reduce(x, mine)
  encoding = (*batch, *(x[i] for i in mine))
  facts.reduce(encoding, range(len(batch), len(encoding)))
