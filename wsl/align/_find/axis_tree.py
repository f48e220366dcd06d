"""Axes as trees: an axis is an atom, a product of axes or a sum of axes.

A reshape of ``[h * d]`` to ``[h, d]`` writes an atom as a product of factors,
major to minor; a slice or a concatenation writes it as a sum of segments::

  qkv [3 h d]   = q + k + v            a sum of three segments
  q   [h d]     = heads * units        a product of two factors

The permutations allowed on an axis are those of its atoms: a sum permutes
inside each segment, a product permutes each factor. Two axes that have to be
permuted alike are *tied* (union-find: one becomes an alias of the other) after
both are written in the same way, their common refinement. Without a common
refinement both are *pinned*: only the identity is allowed.

Ties, cuts, factorizations and pins only shrink the group, so the result is
valid for any order of the equations. Whether it is the largest group may depend
on that order, so ``find`` repeats the pass with the segments of the last one.
"""

from collections.abc import Sequence
import itertools
import math

MANY = 64  # the largest number of segments that are distinguished
ONE_BY_ONE = 'its parts are used one by one'


class Axis:
  """A node of the tree.

  Attributes:
    size: the number of indices.
    link: the axis that this one is an alias of, or ``None``.
    parts: the factors or segments; ``()`` for an atom.
    is_sum: whether the parts are segments.
    pin_reason: for an atom, why it is pinned; ``''`` if it is free.
    index_mixed: for an atom, whether the alignment of indices between the axes
      tied to it was lost, so that no other permutation can depend on them.
  """

  __slots__ = ('index_mixed', 'is_sum', 'link', 'parts', 'pin_reason', 'size')

  def __init__(
    self, size: int, pin_reason: str = '', index_mixed: bool = False
  ) -> None:
    self.size = int(size)
    self.link: Axis | None = None
    self.parts: tuple[Axis, ...] = ()
    self.is_sum = False
    self.pin_reason = pin_reason
    self.index_mixed = index_mixed


def find(x: Axis) -> Axis:
  """Returns the representative of all axes tied to this one (union-find)."""
  while x.link is not None:
    if x.link.link is not None:
      x.link = x.link.link  # path halving
    x = x.link
  return x


def product(axes: Sequence[Axis]) -> Axis:
  """Returns the product of axes, major to minor."""
  axes = [axis for axis in axes if axis.size != 1]
  if len(axes) == 1:
    return axes[0]
  return _node(axes, math.prod(axis.size for axis in axes))


def total(axes: Sequence[Axis]) -> Axis:
  """Returns the sum of axes: their concatenation."""
  axes = [axis for axis in axes if axis.size]
  if len(axes) == 1:
    return axes[0]
  axis = _node(axes, sum(axis.size for axis in axes))
  axis.is_sum = bool(axes)
  return axis


def factors(x: Axis) -> list[Axis]:
  """Returns the factors of an axis, none of them a product or of size 1."""
  x = find(x)
  if x.size == 1:
    return []
  if not x.parts or x.is_sum:
    return [x]
  return [factor for part in x.parts for factor in factors(part)]


def segments(x: Axis) -> list[Axis]:
  """Returns the segments of an axis; an axis without any is one segment.

  A product distributes over the sum in its major factor:
  ``(a + b) * c = a * c + b * c``.
  """
  x = find(x)
  if x.is_sum:
    return [segment for part in x.parts for segment in segments(part)]
  if x.parts:
    first, *rest = factors(x)
    if first.is_sum:
      return [product([segment, *rest]) for segment in segments(first)]
  return [x]


def atoms(x: Axis) -> list[Axis]:
  """Returns all atoms of an axis with repetitions; none of size 1."""
  x = find(x)
  if x.size == 1:
    return []
  if not x.parts:
    return [x]
  return [atom for part in x.parts for atom in atoms(part)]


def blocks(x: Axis) -> list[tuple[Axis, ...]]:
  """Writes an axis as a sum of products of atoms, by distributivity."""
  x = find(x)
  if x.size == 1:
    return [()]
  if not x.parts:
    return [(x,)]
  inner = [blocks(part) for part in x.parts]
  if x.is_sum:
    return list(itertools.chain(*inner))
  return [tuple(itertools.chain(*c)) for c in itertools.product(*inner)]


def pin(x: Axis, reason: str, index_mixed: bool = False) -> None:
  """Allows only the identity on an axis; the first reason is kept."""
  for atom in atoms(x):
    atom.pin_reason = atom.pin_reason or reason
    atom.index_mixed |= index_mixed


def pinned(x: Axis) -> str:
  """Returns why all of an axis is pinned; ``''`` if an atom of it is free."""
  reasons = [atom.pin_reason for atom in atoms(x)]
  if not reasons:
    return 'size 1'
  return reasons[0] if all(reasons) else ''


def tie(x: Axis, y: Axis) -> None:
  """Requires two axes of equal size to be permuted alike."""
  x, y = find(x), find(y)
  if x is y or x.size == 1:
    return
  if y.parts and not x.parts:
    x, y = y, x
  if not y.parts:  # an atom becomes an alias of any axis
    y.link = x
    # What is known of the atom holds for every atom of the other axis.
    if y.pin_reason:
      pin(x, y.pin_reason, y.index_mixed)
    elif y.index_mixed:
      for atom in atoms(x):
        atom.index_mixed = True
    return
  # Both are refined. If one is a sum, the common refinement is a sum: cut both
  # at all ends of segments. Otherwise it is a product of common factors.
  sums = len(segments(x)) > 1 or len(segments(y)) > 1
  if not (_tie_sums(x, y) if sums else _tie_products(x, y)):
    for axis in (x, y):
      pin(axis, 'two ways of splitting it have nothing in common', True)


def cut(x: Axis, k: int) -> tuple[Axis, Axis] | None:
  """Writes an axis as its first k indices plus the rest.

  Returns:
    The two segments; ``None`` if the cut runs through a factor.
  """
  x = find(x)
  if not 0 < k < x.size:
    raise ValueError(f'cannot cut {x.size} indices at {k}')
  if not x.parts:
    x.parts = _part(x, k), _part(x, x.size - k)
    x.is_sum = True
    return x.parts[0], x.parts[1]
  pieces = segments(x)
  if len(pieces) > 1:  # a sum: cut the segment that holds index k
    i = 0
    while k >= pieces[i].size:
      k -= pieces[i].size
      i += 1
    if not k:
      return total(pieces[:i]), total(pieces[i:])
    inner = cut(pieces[i], k)
    if inner is None:
      return None
    return total([*pieces[:i], inner[0]]), total([inner[1], *pieces[i + 1 :]])
  # A product can be cut between two indices of its major factor only.
  first, *rest = factors(x)
  width = x.size // first.size
  halves = None if k % width else cut(first, k // width)
  if halves is None:
    return None
  return product([halves[0], *rest]), product([halves[1], *rest])


def factorize(x: Axis, major: int) -> tuple[Axis, Axis] | None:
  """Writes an atom or a sum as a product of a major factor and the rest.

  A sum ``a + b`` of equal sizes is the product ``2 * a`` if a and b are tied.
  Its major factor is pinned, since each segment has its own entries.

  Args:
    x: the axis, no product.
    major: the size of the major factor.

  Returns:
    Both factors; ``None`` if there is no such product.
  """
  x = find(x)
  if x.size % major:
    return None
  minor = x.size // major
  if not x.parts:
    x.parts = _part(x, major), _part(x, minor)
    return x.parts[0], x.parts[1]
  if not x.is_sum or major > MANY:
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
  axis = Axis(major, ONE_BY_ONE)
  find(x).link = product([axis, rest])
  return axis, rest


def slices(x: Axis, sizes: Sequence[int]) -> list[Axis] | None:
  """Writes an axis as a sum of segments of given sizes, or returns ``None``."""
  out = []
  for size in sizes[:-1]:
    halves = cut(x, size)
    if halves is None:
      return None
    out.append(halves[0])
    x = halves[1]
  return [*out, x]


def _node(parts: Sequence[Axis], size: int) -> Axis:
  """Returns an axis with the given parts."""
  axis = Axis(size)
  axis.parts = tuple(parts)
  return axis


def _part(x: Axis, size: int) -> Axis:
  """Returns a factor or segment of an atom, pinned if the atom is."""
  return Axis(size, x.pin_reason, x.index_mixed)


def _tie_sums(x: Axis, y: Axis) -> bool:
  """Ties two sums segment by segment; False without a common refinement.

  The ends of both lists of segments cut both axes, as in a merge of sorted
  lists: the longer first segment is cut to the length of the shorter one.
  """
  while True:
    p, q = segments(x)[0], segments(y)[0]
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


def _tie_products(x: Axis, y: Axis) -> bool:
  """Ties two products factor by factor; False without a common refinement.

  From major to minor, the larger of the two factors is written as a product
  whose major factor has the size of the smaller one.
  """
  left, right = factors(x)[::-1], factors(y)[::-1]  # the major one is last
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
      [f for x in s for f in factors(x)[::-1]] for s in (left, right)
    )
  return not left and not right
