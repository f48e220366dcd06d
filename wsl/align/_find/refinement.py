"""Common refinements: axes are cut, written as products, and tied.

Two axes that have to be permuted alike are written in the same way, as sums of
segments or products of factors of the same sizes, and their atoms become
aliases of each other. Where there is no such way both are pinned.
"""

from collections.abc import Sequence

from wsl.align._find import axis_tree


def tie(x: axis_tree.Axis, y: axis_tree.Axis) -> None:
  """Requires two axes of equal size to be permuted alike."""
  x, y = axis_tree.find(x), axis_tree.find(y)
  if x is y or x.size == 1:
    return
  if y.parts and not x.parts:
    x, y = y, x
  if not y.parts:  # an atom becomes an alias of any axis
    y.link = x
    # Constraints on the atom hold for every atom of the other axis.
    if y.pin_reason:
      axis_tree.pin(x, y.pin_reason, y.index_mixed)
    elif y.index_mixed:
      for atom in axis_tree.atoms(x):
        atom.index_mixed = True
    return
  # Both are refined. If one is a sum, the common refinement is a sum: cut both
  # at all ends of segments. Otherwise it is a product of common factors.
  sums = len(axis_tree.segments(x)) > 1 or len(axis_tree.segments(y)) > 1
  if not (_tie_sums(x, y) if sums else _tie_products(x, y)):
    for axis in (x, y):
      axis_tree.pin(
        axis, 'two ways of splitting it have nothing in common', True
      )


def cut(
  x: axis_tree.Axis, k: int
) -> tuple[axis_tree.Axis, axis_tree.Axis] | None:
  """Writes an axis as its first k indices plus the rest.

  Returns:
    The two segments; ``None`` if the cut runs through a factor.
  """
  x = axis_tree.find(x)
  if not 0 < k < x.size:
    raise ValueError(f'cannot cut {x.size} indices at {k}')
  if not x.parts:
    x.parts = _part(x, k), _part(x, x.size - k)
    x.is_sum = True
    return x.parts[0], x.parts[1]
  pieces = axis_tree.segments(x)
  if len(pieces) > 1:  # a sum: cut the segment that holds index k
    i = 0
    while k >= pieces[i].size:
      k -= pieces[i].size
      i += 1
    if not k:
      return axis_tree.total(pieces[:i]), axis_tree.total(pieces[i:])
    inner = cut(pieces[i], k)
    if inner is None:
      return None
    return axis_tree.total([*pieces[:i], inner[0]]), axis_tree.total(
      [inner[1], *pieces[i + 1 :]]
    )
  # A product can be cut between two indices of its major factor only.
  first, *rest = axis_tree.factors(x)
  width = x.size // first.size
  halves = None if k % width else cut(first, k // width)
  if halves is None:
    return None
  return axis_tree.product([halves[0], *rest]), axis_tree.product(
    [halves[1], *rest]
  )


def factorize(
  x: axis_tree.Axis, major: int
) -> tuple[axis_tree.Axis, axis_tree.Axis] | None:
  """Writes an atom or a sum as a product of a major factor and the rest.

  A sum ``a + b`` of equal sizes is the product ``2 * a`` if a and b are tied.
  Its major factor is pinned, since each segment has its own entries.

  Args:
    x: the axis, no product.
    major: the size of the major factor.

  Returns:
    Both factors; ``None`` if there is no such product.
  """
  x = axis_tree.find(x)
  if x.size % major:
    return None
  minor = x.size // major
  if not x.parts:
    x.parts = _part(x, major), _part(x, minor)
    return x.parts[0], x.parts[1]
  if not x.is_sum or major > axis_tree.MANY:
    return None
  # Cut the sum into equal chunks and tie them to the last one.
  chunks, rest = [], x
  for _ in range(major - 1):
    halves = cut(rest, minor)
    if halves is None:
      return None
    chunks.append(halves[0])
    rest = halves[1]
  for chunk in chunks:
    tie(chunk, rest)
  axis = axis_tree.Axis(major, axis_tree.ONE_BY_ONE)
  axis_tree.find(x).link = axis_tree.product([axis, rest])
  return axis, rest


def slices(
  x: axis_tree.Axis, sizes: Sequence[int]
) -> list[axis_tree.Axis] | None:
  """Writes an axis as a sum of segments of given sizes, or returns ``None``."""
  out = []
  for size in sizes[:-1]:
    halves = cut(x, size)
    if halves is None:
      return None
    out.append(halves[0])
    x = halves[1]
  return [*out, x]


def _part(x: axis_tree.Axis, size: int) -> axis_tree.Axis:
  """Returns a factor or segment of an atom, pinned if the atom is."""
  return axis_tree.Axis(size, x.pin_reason, x.index_mixed)


def _tie_sums(x: axis_tree.Axis, y: axis_tree.Axis) -> bool:
  """Ties two sums segment by segment; False without a common refinement.

  The ends of both lists of segments cut both axes, as in a merge of sorted
  lists: the longer first segment is cut to the length of the shorter one.
  """
  while True:
    p, q = axis_tree.segments(x)[0], axis_tree.segments(y)[0]
    if p.size == q.size:
      tie(p, q)
      if p.size == x.size:
        return True
      k = p.size
    else:
      k = min(p.size, q.size)
    left, right = cut(x, k), cut(y, k)
    if left is None or right is None:
      return False
    if p.size != q.size:
      tie(left[0], right[0])
    x, y = left[1], right[1]


def _tie_products(x: axis_tree.Axis, y: axis_tree.Axis) -> bool:
  """Ties two products factor by factor; False without a common refinement.

  From major to minor, the larger of the two factors is written as a product
  whose major factor has the size of the smaller one.
  """
  left, right = (
    axis_tree.factors(x)[::-1],
    axis_tree.factors(y)[::-1],
  )  # the major one is last
  while left and right:
    p, q = left.pop(), right.pop()
    if p.size != q.size:
      small, large, rest = (p, q, right) if p.size < q.size else (q, p, left)
      halves = factorize(large, small.size)
      if halves is None:
        return False
      rest.append(halves[1])
      p, q = small, halves[0]
    tie(p, q)
    # The tie may have refined factors that are still in the lists.
    left, right = (
      [f for x in s for f in axis_tree.factors(x)[::-1]] for s in (left, right)
    )
  return not left and not right
