"""Arrays as blocks of atoms, after the axes of the whole function are known.

While a function is read its axes are still cut, factorized and tied. When all
of it has been read, each axis of each array is a sum of segments, and a segment
a product of atoms. Every occurrence of an atom in an array has a variable: the
power, type or parity with which a gauge of the atom acts on the array there.
"""

from collections.abc import Sequence
import itertools
import math
from typing import NamedTuple, TypeAlias

from wsl.align import _blocks
from wsl.align._find import axis_facts, axis_tree


class Spot(NamedTuple):
  """An occurrence of an atom in an array.

  Attributes:
    atom: the atom.
    key: the array, the piece, the dimension, the segment and the factor.
  """

  atom: axis_tree.Axis
  key: tuple[int, ...]


class Segment(NamedTuple):
  """A product of atoms, and the places of its entries in the dimension.

  Entry (i, j, ...) is at ``offset + i * strides[0] + j * strides[1] + ...``: so
  ``h * (a + b)`` and ``h * a + h * b`` differ.

  Attributes:
    spots: the atoms, major to minor.
    offset: the place of the first entry.
    strides: the distance of consecutive indices of each atom.
  """

  spots: tuple[Spot, ...] = ()
  offset: int = 0
  strides: tuple[int, ...] = ()

  @property
  def end(self) -> int:
    """The place after the last entry."""
    last = zip(self.spots, self.strides)
    return 1 + self.offset + sum((s.atom.size - 1) * n for s, n in last)


Dimension: TypeAlias = tuple[Segment, ...]
Piece: TypeAlias = tuple[Dimension, ...]
ONE: Dimension = (Segment(),)  # a dimension of size 1


class Layout(NamedTuple):
  """The blocks of an array.

  Attributes:
    pieces: for each piece the segments of each dimension. Pieces follow one
      another along the dimension ``dim``; most arrays are one piece.
    dim: that dimension.
    sizes: the size of each piece along it.
  """

  pieces: tuple[Piece, ...]
  dim: int
  sizes: tuple[int, ...]


def of(value: axis_facts.Value) -> Layout:
  """Returns the blocks of an array."""
  rows = value.pieces or (value.axes,)
  pieces = tuple(
    tuple(dimension(axis, (value.number, p, i)) for i, axis in enumerate(axes))
    for p, axes in enumerate(rows)
  )
  sizes = tuple(axes[value.dim].size if axes else 1 for axes in rows)
  return Layout(pieces, value.dim, sizes)


def dimension(axis: axis_tree.Axis, key: tuple[int, ...]) -> Dimension:
  """Returns the segments of an axis; none if they are too many.

  Atoms that occur in no segment are those on which no gauge acts there.
  """
  axis = axis_tree.find(axis)
  if not axis.parts:  # most axes
    spots = (Spot(axis, (*key, 0, 0)),)
    return ONE if axis.size == 1 else (Segment(spots, 0, (1,)),)
  rows = _places(axis_tree.written(axis))
  if len(rows) > axis_tree.UNROLLED:
    return ()
  return tuple(
    Segment(
      tuple(Spot(atom, (*key, s, k)) for k, atom in enumerate(atoms)),
      offset,
      strides,
    )
    for s, (atoms, offset, strides) in enumerate(rows)
  )


def _places(
  parts: Sequence[_blocks.Part],
) -> list[tuple[_blocks.Factors, int, tuple[int, ...]]]:
  """Returns the atoms of each segment, its offset and its strides."""
  out, start = [], 0
  for part in parts:
    rows = _places(part.parts) if part.parts else [((), 0, ())]
    step = sum(p.size for p in part.parts) if part.parts else 1
    strides: tuple[int, ...] = ()
    for atom in reversed(part.factors):
      strides = (step, *strides)
      step *= atom.size
    for atoms, offset, inner in rows:
      row = part.factors + atoms, start + offset, strides + inner
      out.append(row)
    start += step
  return out


def spots(layout: Layout) -> list[Spot]:
  """Returns all occurrences of atoms."""
  return [
    spot
    for piece in layout.pieces
    for segments in piece
    for spot in along(segments)
  ]


def along(segments: Dimension) -> list[Spot]:
  """Returns the occurrences of atoms along a dimension."""
  return [spot for segment in segments for spot in segment.spots]


def product(spots: Sequence[Spot]) -> Dimension:
  """Returns a dimension that is the product of some atoms."""
  sizes = [spot.atom.size for spot in spots]
  steps = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
  return (Segment(tuple(spots), 0, tuple(steps)),)


def same(xs: Dimension, ys: Dimension) -> list[tuple[Spot, Spot]] | None:
  """Pairs the occurrences in two equal dimensions; None if they differ."""
  if len(xs) != len(ys):
    return None
  pairs: list[tuple[Spot, Spot]] = []
  for (x, i, m), (y, j, n) in zip(xs, ys):
    if len(x) != len(y) or i != j or m != n:
      return None
    for p, q in zip(x, y):
      if p.atom is not q.atom:
        return None
      pairs.append((p, q))
  return pairs


def cut(segments: Dimension, sizes: Sequence[int]) -> list[Dimension] | None:
  """Splits the segments of a dimension by sizes; None if one is cut."""
  out: list[Dimension] = []
  start = 0
  for size in sizes:
    stop = start + size
    near = [s for s in segments if s.offset < stop and s.end > start]
    if any(s.offset < start or s.end > stop for s in near):
      return None
    out.append(tuple(s._replace(offset=s.offset - start) for s in near))
    start = stop
  return out


def flat(
  dimensions: Sequence[Dimension], sizes: Sequence[int]
) -> list[Segment]:
  """Expands a product of dimensions to segments, the last one fastest."""
  # Entry (i, j) of dimensions of n and m entries is at m i + j.
  steps = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
  return [
    Segment(
      tuple(itertools.chain(*(s.spots for s in parts))),
      sum(s.offset * step for s, step in zip(parts, steps)),
      tuple(n * step for s, step in zip(parts, steps) for n in s.strides),
    )
    for parts in itertools.product(*dimensions)
  ]


def like(layout: Layout, model: Layout) -> Layout | None:
  """Returns a layout with the pieces of another one; None if they clash.

  An array of one piece is divided along the dimension of the other's pieces; a
  dimension of size 1 there belongs to each of them.
  """
  if len(model.pieces) == 1 or layout.sizes == model.sizes:
    same_dim = layout.dim == model.dim or len(layout.pieces) == 1
    fits = len(layout.pieces) == len(model.pieces) and same_dim
    return layout if fits else None
  if len(layout.pieces) > 1:
    return None
  piece = layout.pieces[0]
  if not piece or not any(piece[model.dim]):
    return Layout((piece,) * len(model.sizes), model.dim, model.sizes)
  parts = cut(piece[model.dim], model.sizes)
  if parts is None:
    return None
  before, after = piece[: model.dim], piece[model.dim + 1 :]
  pieces = tuple((*before, part, *after) for part in parts)
  return Layout(pieces, model.dim, model.sizes)


def between(layout: Layout, start: int, stop: int) -> Layout | None:
  """Returns the pieces in a range; None if it cuts one."""
  at, pieces, sizes = 0, [], []
  for piece, size in zip(layout.pieces, layout.sizes):
    if start <= at and at + size <= stop:
      pieces.append(piece)
      sizes.append(size)
    elif start < at + size and at < stop:
      return None
    at += size
  return Layout(tuple(pieces), layout.dim, tuple(sizes))


def joined(
  layout: Layout, dims: range, shape: Sequence[int]
) -> list[Dimension]:
  """Returns the segments of some dimensions, flattened.

  If pieces follow one another along one of them, they are joined; else there is
  a list for each piece.
  """
  whole = sum(layout.sizes)
  sizes = [whole if i == layout.dim else shape[i] for i in dims]
  if len(layout.pieces) == 1 or layout.dim not in dims:
    return [
      tuple(flat([piece[i] for i in dims], sizes)) for piece in layout.pieces
    ]
  out: list[Segment] = []
  start = 0
  for piece, size in zip(layout.pieces, layout.sizes):
    moved = tuple(
      s._replace(offset=s.offset + start) for s in piece[layout.dim]
    )
    out += flat([moved if i == layout.dim else piece[i] for i in dims], sizes)
    start += size
  return [tuple(sorted(out, key=lambda segment: segment.offset))]
