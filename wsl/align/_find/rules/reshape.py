"""The rule for reshape: factors of the operand's axes form the new axes."""

from collections.abc import Sequence
import math

from jax.extend import core

from wsl import jaxprs
from wsl.align._find import axis_facts, axis_tree, refinement

Results = list[axis_facts.Axes] | None


def distribute(
  x: Sequence[axis_tree.Axis], sizes: Sequence[int]
) -> list[axis_tree.Axis] | None:
  """Distributes the factors of axes over axes of other sizes.

  Args:
    x: the axes, major to minor.
    sizes: the sizes of the new axes, with the same product.

  Returns:
    The new axes; ``None`` if a factor would have to be split between them in a
    way that it does not factorize.
  """
  # Fill each new axis from the major factor on. A factor that is too large is
  # split: its major part completes the axis, its minor part is next.
  queue = [f for axis in x for f in axis_tree.factors(axis)][::-1]
  out = []
  for size in sizes:
    taken: list[axis_tree.Axis] = []
    need = size
    while need > 1:
      first, *rest = axis_tree.factors(queue.pop())
      queue.extend(rest[::-1])
      if need % first.size:
        halves = (
          None if first.size % need else refinement.factorize(first, need)
        )
        if halves is None:
          return None
        queue.append(halves[1])
        first = halves[0]
      taken.append(first)
      need //= first.size
    out.append(axis_tree.product(taken))
  return out


def independent_groups(
  old: Sequence[int], new: Sequence[int]
) -> list[tuple[range, range]]:
  """Splits a reshape into independent ones of the smallest number of axes.

  Args:
    old: the shape of the operand.
    new: the shape of the result.

  Returns:
    Pairs of ranges of axes, of operand and result, with equal products.
  """
  # Advance in the shape whose product is smaller until both products agree.
  groups = []
  i = j = 0
  while i < len(old) or j < len(new):
    start = i, j
    a = b = 1
    while a != b or start == (i, j):
      if a <= b and i < len(old):
        a *= old[i]
        i += 1
      elif j < len(new):
        b *= new[j]
        j += 1
      else:
        a *= old[i]
        i += 1
    groups.append((range(start[0], i), range(start[1], j)))
  return groups


def without_major(axes: axis_facts.Axes, new: Sequence[int]) -> axis_facts.Axes:
  """Separates the factors before a sum, if they become axes of the result.

  A reshape of ``heads * (q + k + v)`` to ``[heads, 3, units]`` is then one of
  the sum.
  """
  out: list[axis_tree.Axis] = []
  old = [axis.size for axis in axes]
  for before, after in independent_groups(old, new):
    own = [f for i in before for f in axis_tree.factors(axes[i])]
    at = next((k for k, factor in enumerate(own) if factor.is_sum), 0)
    lead = math.prod(factor.size for factor in own[:at])
    ends = [math.prod(new[j] for j in after[:n]) for n in range(len(after))]
    if lead == 1 or lead not in ends:
      out += [axes[i] for i in before]
      continue
    sizes = [new[j] for j in after[: ends.index(lead)]]
    major = distribute(own[:at], sizes)
    if major is None:
      out += [axes[i] for i in before]
    else:
      out += [*major, axis_tree.product(own[at:])]
  return tuple(out)


def whole_rows(
  parts: Sequence[axis_tree.Axis], width: int, inner: int
) -> Sequence[axis_tree.Axis] | None:
  """Joins segments that end within a row, and cuts them at the ends of rows.

  Groups of 4 channels of a concatenation of 6 and 2 are ``4`` and ``2 + 2``.

  Args:
    parts: the segments of the major axis.
    width: the number of entries of a row of the result.
    inner: the number of entries for each index of the major axis.

  Returns:
    Segments of whole rows; ``None`` if a segment cannot be cut there.
  """
  out: list[axis_tree.Axis] = []
  rest: list[axis_tree.Axis] = []
  for part in parts:
    rest.append(part)
    size = sum(x.size for x in rest)
    if size * inner % width:
      continue
    rows = [axis_tree.total(rest)]
    if len(rest) > 1:
      if width % inner:
        return None
      count = size * inner // width
      cut = refinement.slices(rows[0], [width // inner] * count)
      if cut is None:
        return None
      rows = cut
    out += rows
    rest = []
  return None if rest or len(out) > axis_tree.MANY else out


def reshape(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Distributes the factors of the operand's axes over the new axes."""
  if eqn.params['dimensions'] is not None or len(args) > 1:
    return None
  x, shape = args[0].axes, jaxprs.shape_of(eqn.outvars[0])
  out: list[axis_tree.Axis] = []
  for old, new in independent_groups([axis.size for axis in x], shape):
    sizes = [shape[j] for j in new]
    axes = distribute([x[i] for i in old], sizes)
    if axes is None:
      reason = 'a reshape that does not keep its factors'
      for i in old:
        axis_tree.pin(x[i], reason)
        facts.index_dependent(x[i], x)
      axes = list(axis_facts.fresh(sizes, reason))
    out += axes
  return [tuple(out)]
