"""Axes as trees: an axis is an atom, a product of axes or a sum of axes.

A reshape of ``[h * d]`` to ``[h, d]`` writes an atom as a product of factors,
major to minor; a slice or a concatenation writes it as a sum of segments::

  qkv [3 h d]   = q + k + v            a sum of three segments
  q   [h d]     = heads * units        a product of two factors
  kv  [h (d+e)] = heads * (k + v)      a product of a factor and a sum

The permutations allowed on an axis are those of its atoms: a sum permutes
inside each segment, a product permutes each factor. Two axes that have to be
permuted alike are *tied* (union-find: one becomes an alias of the other) after
both are written in the same way, their common refinement, see ``refinement``.
Without a common refinement both are *pinned*: only the identity is allowed.

Ties, cuts, factorizations and pins only shrink the group, so the result is
valid for any order of the equations. Whether it is the largest group may depend
on that order, so ``find`` repeats the pass with the segments of the last one.
"""

from collections.abc import Sequence
import itertools
import math
from typing import TypeAlias

from wsl.align import _blocks

MANY = 64  # the largest number of segments that are distinguished
UNROLLED = 256  # the largest number of segments of an axis that is written
UNUSED = 'the function does not use it'
ONE_BY_ONE = 'its parts are used one by one'
# The parts of an axis: the size of each, or of its first factors and its parts.
Sizes: TypeAlias = tuple[tuple[int, 'Sizes'], ...]


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
    is_outer: for an atom, whether other permutations depend on its index.
  """

  __slots__ = (
    'index_mixed',
    'is_outer',
    'is_sum',
    'link',
    'parts',
    'pin_reason',
    'size',
  )

  def __init__(
    self, size: int, pin_reason: str = '', index_mixed: bool = False
  ) -> None:
    self.size = int(size)
    self.link: Axis | None = None
    self.parts: tuple[Axis, ...] = ()
    self.is_sum = False
    self.pin_reason = pin_reason
    self.index_mixed = index_mixed
    self.is_outer = False


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


def written(x: Axis, expand: bool = True) -> tuple[_blocks.Part, ...]:
  """Writes an axis as a sum of parts: products of atoms, and of inner sums.

  A pinned factor before a sum is expanded, ``2 * (a + b) = a + b + a + b``, if
  no permutation depends on its index.
  """
  out: list[_blocks.Part] = []
  for segment in segments(x):
    own = factors(segment)
    at = next((i for i, factor in enumerate(own) if factor.is_sum), None)
    if at is None:
      out.append(_blocks.Part(tuple(own)))
      continue
    inner = written(product(own[at:]), expand)
    repeats = math.prod(factor.size for factor in own[:at])
    fixed = all(f.pin_reason and not f.is_outer for f in own[:at])
    if at == 0 or (expand and fixed and repeats * len(inner) <= UNROLLED):
      out += inner * repeats
    else:
      out.append(_blocks.Part(tuple(own[:at]), inner))
  return tuple(out)


def sizes(x: Axis) -> Sizes:
  """Returns the parts of an axis, down to those that share no factors."""
  out: list[tuple[int, Sizes]] = []
  for part in segments(x):
    own = factors(part)
    if not shares_factors(part):
      out.append((part.size, ()))
      continue
    at = next(k for k, factor in enumerate(own) if factor.is_sum)
    inner = sizes(product(own[at:]))
    lead = math.prod(factor.size for factor in own[:at])
    out += inner if lead == 1 else [(lead, inner)]
  return tuple(out)


def shares_factors(x: Axis) -> bool:
  """Returns True if the parts of a sum share factors that follow it."""
  own = factors(x)
  at = next((k for k, factor in enumerate(own) if factor.is_sum), None)
  if at is None:
    return False
  return at < len(own) - 1 or any(map(shares_factors, segments(own[at])))


def of_sizes(parts: Sizes) -> Axis:
  """Returns a new axis of given parts."""
  return total(
    [
      product([Axis(size), *([of_sizes(inner)] if inner else [])])
      for size, inner in parts
    ]
  )


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


def _node(parts: Sequence[Axis], size: int) -> Axis:
  """Returns an axis with the given parts."""
  axis = Axis(size)
  axis.parts = tuple(parts)
  return axis
