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

from wsl.align._find import axis_facts, axis_tree

MANY = 256  # segments of an axis; more are not distinguished


class Spot(NamedTuple):
  """An occurrence of an atom in an array.

  Attributes:
    atom: the atom.
    key: the array, the piece, the dimension, the segment and the factor.
  """

  atom: axis_tree.Axis
  key: tuple[int, ...]


Segment: TypeAlias = tuple[Spot, ...]
Dimension: TypeAlias = tuple[Segment, ...]
Piece: TypeAlias = tuple[Dimension, ...]


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
  """Returns the segments of an axis; none if they are many or interleaved.

  Atoms that occur in no segment are those on which no gauge acts there.
  """
  blocks = _written(axis)
  if blocks is None or len(blocks) > MANY:
    return ()
  return tuple(
    tuple(Spot(atom, (*key, s, k)) for k, atom in enumerate(block))
    for s, block in enumerate(blocks)
  )


def _written(axis: axis_tree.Axis) -> list[list[axis_tree.Axis]] | None:
  """Writes an axis as consecutive segments, products of atoms.

  A sum inside of a product, ``h * (a + b)``, is not consecutive: its segments
  are interleaved. With a pinned h it is ``a + b + a + b ...``.
  """
  out: list[list[axis_tree.Axis]] = []
  for part in axis_tree.segments(axis):
    factors = axis_tree.factors(part)
    at = next((i for i, factor in enumerate(factors) if factor.is_sum), None)
    if at is None:
      out.append(factors)
      continue
    inner = _written(axis_tree.product(factors[at:]))
    repeats = math.prod(factor.size for factor in factors[:at])
    free = not all(map(axis_tree.pinned, factors[:at]))
    if inner is None or free or repeats * len(inner) > MANY:
      return None
    out += inner * repeats
  return out


def width(segment: Segment) -> int:
  """Returns the number of indices of a segment."""
  size = 1
  for spot in segment:
    size *= spot.atom.size
  return size


def spots(layout: Layout) -> list[Spot]:
  """Returns all occurrences of atoms."""
  return [
    spot
    for piece in layout.pieces
    for segments in piece
    for segment in segments
    for spot in segment
  ]


def same(xs: Dimension, ys: Dimension) -> list[tuple[Spot, Spot]] | None:
  """Pairs the occurrences in two equal dimensions; None if they differ."""
  if len(xs) != len(ys):
    return None
  pairs: list[tuple[Spot, Spot]] = []
  for x, y in zip(xs, ys):
    if [a.atom for a in x] != [b.atom for b in y]:
      return None
    pairs += zip(x, y)
  return pairs


def cut(segments: Dimension, sizes: Sequence[int]) -> list[Dimension] | None:
  """Splits the segments of a dimension by sizes; None if one is cut."""
  out: list[Dimension] = []
  rest = list(segments)
  for size in sizes:
    taken: list[Segment] = []
    while size > 0:
      if not rest or width(rest[0]) > size:
        return None
      size -= width(rest[0])
      taken.append(rest.pop(0))
    out.append(tuple(taken))
  return out


def flat(dimensions: Sequence[Dimension]) -> list[Segment]:
  """Expands a product of dimensions to segments, the last one fastest."""
  return [
    tuple(itertools.chain(*parts)) for parts in itertools.product(*dimensions)
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
) -> list[list[Segment]]:
  """Returns the segments of some dimensions, flattened.

  If pieces follow one another along one of them, they are joined, provided that
  it is the major one; else there is a list for each piece.
  """
  rows = [flat([piece[i] for i in dims]) for piece in layout.pieces]
  if len(rows) == 1 or layout.dim not in dims:
    return rows
  major = next((i for i in dims if shape[i] > 1), layout.dim)
  return [list(itertools.chain(*rows))] if major == layout.dim else [[]]
