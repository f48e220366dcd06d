"""Rules for primitives that rearrange entries: slice, concatenate, pad."""

from collections.abc import Sequence
import itertools

from jax.extend import core

from wsl import jaxprs
from wsl.align._find import axis_facts, axis_tree, refinement
from wsl.align._find.rules import reshape

Results = list[axis_facts.Axes] | None


def transpose(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Permutes the axes."""
  return [tuple(args[0].axes[i] for i in eqn.params['permutation'])]


def squeeze(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Drops axes of size 1."""
  dims = eqn.params['dimensions']
  return [tuple(a for i, a in enumerate(args[0].axes) if i not in dims)]


def expand_dims(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Inserts axes of size 1."""
  rest = iter(args[0].axes)
  ndim = len(jaxprs.shape_of(eqn.outvars[0]))
  dims = eqn.params['dimensions']
  return [
    tuple(axis_tree.Axis(1) if i in dims else next(rest) for i in range(ndim))
  ]


def broadcast(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Adds free axes along which the result is constant."""
  shape = eqn.params['shape']
  if len(args) > 1:
    return None
  out = list(axis_facts.fresh(shape))
  old = jaxprs.shape_of(eqn.invars[0])
  for axis, n, i in zip(args[0].axes, old, eqn.params['broadcast_dimensions']):
    if n == shape[i]:  # not repeated: the operand's own axis
      out[i] = axis
  return [tuple(out)]


def ranges(sizes: Sequence[int]) -> list[tuple[int, int]]:
  """Returns the ranges of consecutive segments of given sizes."""
  ends = itertools.accumulate(map(int, sizes), initial=0)
  return list(itertools.pairwise(ends))


def part(
  facts: axis_facts.Facts,
  x: axis_facts.Axes,
  i: int,
  start: int,
  stop: int,
  reason: str,
) -> axis_tree.Axis:
  """Returns the segment ``start:stop`` of the i-th axis of x.

  A free axis is cut there. A pinned one, or one of many segments, stays as it
  is; its segment is then a pinned axis.
  """
  axis = x[i]
  if stop - start == axis.size:
    return axis
  if (
    not axis_tree.pinned(axis)
    and len(axis_tree.segments(axis)) <= axis_tree.MANY
  ):
    sizes = [n for n in (start, stop - start, axis.size - stop) if n]
    pieces = refinement.slices(axis, sizes)
    if pieces is not None:
      return pieces[1 if start else 0]
  return facts.pin_moved(x, i, stop - start, reason)


def slice_(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Cuts axes where they are sliced.

  A stride s that divides the axis is a reshape to ``[n, s]`` and one index of
  the second axis, which is pinned.
  """
  x, p = args[0].axes, eqn.params
  strides = p['strides'] or (1,) * len(x)
  out = []
  for i, stride in enumerate(strides):
    start, stop = p['start_indices'][i], p['limit_indices'][i]
    if stride == 1 or stop - start <= 1:
      out.append(part(facts, x, i, start, stop, 'a slice of it'))
      continue
    count = -(-(stop - start) // stride)  # rounded up
    halves = None
    if count * stride == x[i].size and not axis_tree.pinned(x[i]):
      halves = reshape.distribute([x[i]], [count, stride])
    if halves is None:
      out.append(facts.pin_moved(x, i, count, 'a slice with strides'))
    else:
      axis_tree.pin(halves[1], 'a slice with strides')
      out.append(halves[0])
  return [tuple(out)]


def split(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Cuts an axis into segments of given sizes."""
  x, i = args[0].axes, eqn.params['axis']
  return [
    (*x[:i], part(facts, x, i, a, b, 'split along it'), *x[i + 1 :])
    for a, b in ranges(eqn.params['sizes'])
  ]


def unstack(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Cuts an axis into single indices, one for each result."""
  x, i = args[0].axes, eqn.params['axis']
  for k in range(x[i].size):
    part(facts, x, i, k, k + 1, 'unstacked along it')
  return [(*x[:i], *x[i + 1 :])] * x[i].size


def concatenate(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Adds the axes that are concatenated; ties the other axes."""
  i = eqn.params['dimension']
  args = [arg for arg in args if arg.axes[i].size]
  first = args[0].axes
  for arg in args[1:]:
    for d, (x, y) in enumerate(zip(first, arg.axes)):
      if d != i:
        refinement.tie(x, y)
  along = [arg.axes[i] for arg in args]
  size = sum(axis.size for axis in along)
  count = sum(len(axis_tree.segments(axis)) for axis in along)
  # If all are pinned, or the segments too many, one pinned atom is enough.
  if all(map(axis_tree.pinned, along)) or count > axis_tree.MANY:
    moved = [
      facts.pin_moved(arg.axes, i, size, 'concatenated along it')
      for arg in args
    ]
    out = moved[0]
  else:
    out = axis_tree.total(along)
  return [(*first[:i], out, *first[i + 1 :])]


def stack(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Value]:
  """Returns a value with one piece for each operand."""
  # Operands stay separate, as in ``pieces``, until an operation ties them.
  i = eqn.params['axis']
  pieces = [(*a.axes[:i], axis_tree.Axis(1), *a.axes[i:]) for a in args]
  return [axis_facts.from_pieces(i, pieces)]


def pad(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Adds a free segment on each side; pins axes padded in between."""
  x = args[0].axes
  out = []
  for i, (low, high, inner) in enumerate(eqn.params['padding_config']):
    axis = x[i]
    size = max(low + high + axis.size + inner * (axis.size - 1), 0)
    if (low, high, inner) == (0, 0, 0):
      out.append(axis)
    elif inner or axis_tree.pinned(axis) or min(low, high) < 0:
      out.append(facts.pin_moved(x, i, size, 'padded along it'))
    else:
      # The padding is constant, so its entries may be permuted: 0 + axis + 0.
      ends = axis_facts.fresh((low, high))
      out.append(axis_tree.total([ends[0], axis, ends[1]]))
  return [tuple(out)]


def reverse(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Pins the reversed axes."""
  x = args[0].axes
  out = list(x)
  for i in eqn.params['dimensions']:
    out[i] = facts.pin_moved(x, i, x[i].size, 'reversed along it')
  return [tuple(out)]


def tile(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Returns products of a free axis of repetitions and the tiled axis."""
  return [
    tuple(
      axis_tree.product([axis_tree.Axis(count), axis])
      for count, axis in zip(eqn.params['reps'], args[0].axes)
    )
  ]


def iota(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Pins the axis along which the result counts."""
  out = list(axis_facts.fresh(eqn.params['shape']))
  axis_tree.pin(out[eqn.params['dimension']], 'iota numbers it')
  return [tuple(out)]
