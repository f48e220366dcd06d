"""Rules for gather, scatter and slices at computed positions."""

from collections.abc import Collection
from typing import Any, NamedTuple

from jax.extend import core
import numpy as np

from wsl import jaxprs
from wsl.align._find import axis_facts, axis_tree, known_constants, refinement
from wsl.align._find.rules import shape

Results = list[axis_facts.Axes] | None
_REASON = 'indexed by position'


class Taken(NamedTuple):
  """A known range of one axis that is taken from an array.

  Attributes:
    axis: the axis; the others are whole.
    start: the first index.
    stop: the index after the last one.
    dropped: whether the result lacks the axis.
  """

  axis: int
  start: int
  stop: int
  dropped: bool = False


def taken(eqn: core.JaxprEqn, args: axis_facts.Values) -> Taken | None:
  """Returns the range that a gather or slice at known positions takes."""
  full, out = jaxprs.shape_of(eqn.invars[0]), jaxprs.shape_of(eqn.outvars[0])
  sizes = eqn.params['slice_sizes']
  if eqn.primitive.name == 'dynamic_slice':
    cut = [i for i, n in enumerate(full) if sizes[i] != n]
    starts = _starts(args[1:], len(full))
    if len(cut) != 1 or (first := starts[cut[0]]) is None:
      return None
    (i,) = cut
    first = min(max(first, 0), full[i] - sizes[i])  # as XLA clamps
    return Taken(i, first, first + sizes[i])
  dn, index = eqn.params['dimension_numbers'], args[1]
  if len(dn.start_index_map) != 1 or dn.operand_batching_dims:
    return None
  (i,) = dn.start_index_map
  whole = all(n == m for k, (n, m) in enumerate(zip(full, sizes)) if k != i)
  array = known_constants.array_of(index.constant)
  if not whole or sizes[i] != 1 or array is None or not array.size:
    return None
  places = array.reshape(-1)
  first, last = int(places[0]), int(places[-1])
  run = np.array_equal(places, np.arange(first, last + 1))
  inside = first >= 0 and last < full[i]
  # The axis of the indices has to be where the axis was.
  kept = tuple(k for k in range(len(out)) if k != i or len(out) < len(full))
  same = dn.collapsed_slice_dims == (i,) and dn.offset_dims == kept
  if not run or not inside or not same or len(out) > len(full):
    return None
  return Taken(i, first, last + 1, len(out) < len(full))


def gather(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Pins the indexed axes; keeps window axes and the axes of the indices.

  If the indices are known, the indexed axis is cut into the runs of
  consecutive indices that are taken.
  """
  x, index = args[0].axes, args[1].axes
  dn, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
  # The result has the axes of the indices (all but the last, which lists the
  # components of one index) and, at offset_dims, the window axes of x.
  chosen = _choose(facts, eqn, args)
  pairs = zip(dn.operand_batching_dims, dn.start_indices_batching_dims)
  for i, j in pairs:
    refinement.tie(x[i], index[j])
  if chosen is None:
    axis_tree.pin(index[-1], 'the components of an index')
  batch = list(index[:-1])
  if chosen is not None and batch:
    batch = [chosen]
  windows = []
  for i, axis in enumerate(x):
    if i in dn.operand_batching_dims:
      continue
    whole = sizes[i] == axis.size
    if i in dn.collapsed_slice_dims:
      if not whole and chosen is None:
        facts.pin_moved(x, i, 1, _REASON)
    elif whole:
      windows.append(axis)
    else:
      windows.append(facts.pin_moved(x, i, sizes[i], _REASON))
  ndim = len(jaxprs.shape_of(eqn.outvars[0]))
  rest, window = iter(batch), iter(windows)
  return [
    tuple(next(window if i in dn.offset_dims else rest) for i in range(ndim))
  ]


def _choose(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> axis_tree.Axis | None:
  """Returns the indices taken from an axis as a sum of segments.

  Returns:
    The axis; ``None`` if the indices are unknown or take too many segments.
  """
  x, index = args[0].axes, args[1]
  dn = eqn.params['dimension_numbers']
  dims = dn.start_index_map
  if index.constant is None or len(dims) != 1 or dn.operand_batching_dims:
    return None
  i = dims[0]
  if len(index.axes) > 2 or dn.collapsed_slice_dims != dims:
    return None
  array = index.constant.array()
  if array is None or axis_tree.pinned(x[i]):
    return None
  places = array.reshape(-1).astype(np.int64)
  if not places.size or places.min() < 0 or places.max() >= x[i].size:
    return None
  # Consecutive indices form runs; a permutation inside a run commutes with the
  # gather, one that moves an index to another run does not.
  breaks = np.flatnonzero(np.diff(places) != 1) + 1
  runs = [(int(r[0]), int(r[-1]) + 1) for r in np.split(places, breaks)]
  if len(runs) + len(axis_tree.segments(x[i])) > axis_tree.MANY:
    return None
  taken = [shape.part(facts, x, i, a, b, _REASON) for a, b in runs]
  return axis_tree.total(taken)


def scatter(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Pins the indexed axes; ties the window axes of updates and array.

  The order of updates matters only if later ones overwrite earlier ones.
  """
  x, index, update = (arg.axes for arg in args)
  dn = eqn.params['dimension_numbers']
  pairs = zip(dn.operand_batching_dims, dn.scatter_indices_batching_dims)
  for i, j in pairs:
    refinement.tie(x[i], index[j])
  # Updates have the axes of the indices and, at update_window_dims, those of x.
  rows = [j for j in range(len(update)) if j not in dn.update_window_dims]
  for j, axis in zip(rows, index[:-1]):
    refinement.tie(update[j], axis)
    if eqn.primitive.name == 'scatter':
      axis_tree.pin(axis, 'written in order')
    facts.index_dependent(update[j], update)
  axis_tree.pin(index[-1], 'the components of an index')
  tie_windows(facts, x, update, dn, dn.inserted_window_dims)
  return [x]


def tie_windows(
  facts: axis_facts.Facts,
  x: axis_facts.Axes,
  update: axis_facts.Axes,
  dn: Any,
  by_position: Collection[int],
) -> None:
  """Ties the window axes of the updates of a scatter to those of the array.

  A window smaller than its axis starts at a computed position, so both axes
  are pinned.

  Args:
    facts: receives the constraints.
    x: the axes of the array.
    update: the axes of the updates.
    dn: the dimension numbers of the scatter.
    by_position: the inserted axes, those without a window, whose indices are
      positions; they are pinned.
  """
  window = iter(dn.update_window_dims)
  for i, axis in enumerate(x):
    if i in dn.operand_batching_dims:
      continue
    if i in dn.inserted_window_dims:
      if i in by_position:
        axis_tree.pin(axis, _REASON)
        facts.index_dependent(axis, x)
      continue
    j = next(window)
    if update[j].size == axis.size:
      refinement.tie(axis, update[j])
    else:
      for y, d in ((x, i), (update, j)):
        axis_tree.pin(y[d], _REASON)
        facts.index_dependent(y[d], y)


def dynamic_slice(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Cuts axes sliced at known positions; pins other sliced axes."""
  x = args[0].axes
  starts = _starts(args[1:], len(x))
  out = []
  for i, size in enumerate(eqn.params['slice_sizes']):
    start = starts[i]
    if size == x[i].size:
      out.append(x[i])
    elif start is None:
      out.append(facts.pin_moved(x, i, size, _REASON))
    else:
      start = min(max(start, 0), x[i].size - size)  # as XLA clamps
      out.append(shape.part(facts, x, i, start, start + size, _REASON))
  return [tuple(out)]


def dynamic_update_slice(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Ties the update to the segment of the array that it replaces."""
  x, update = args[0].axes, args[1].axes
  starts = _starts(args[2:], len(x))
  for i, axis in enumerate(update):
    start, size = starts[i], axis.size
    if size == x[i].size:
      refinement.tie(x[i], axis)
    elif start is None or axis_tree.pinned(x[i]) or axis_tree.pinned(axis):
      for y in (x, update):
        axis_tree.pin(y[i], _REASON)
        facts.index_dependent(y[i], y)
    else:
      start = min(max(start, 0), x[i].size - size)
      old = shape.part(facts, x, i, start, start + size, _REASON)
      refinement.tie(old, axis)
      if axis_tree.pinned(old):
        facts.index_dependent(axis, update)
  return [x]


def _starts(args: axis_facts.Values, count: int) -> list[int | None]:
  """Returns the positions of a slice, ``None`` where they are not constant."""
  arrays = [known_constants.array_of(a.constant) for a in args[:count]]
  return [None if array is None else int(array) for array in arrays]
