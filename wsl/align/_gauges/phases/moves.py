"""Moves of the entries of an array along some of its dimensions.

An array is described entry by entry along *expanded* dimensions, such as heads
and their units. The part of the array at an entry, over the other dimensions
(batch, positions), is its *row*. A move of expanded dimensions moves
entries; a move of the others changes all rows alike, and has a key.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from wsl.align._find.rules import reshape as reshape_lib

Shape: TypeAlias = tuple[int, ...]
Dims: TypeAlias = frozenset[int]


class Move(NamedTuple):
  """A move.

  Attributes:
    shape: the shape of the result.
    dims: its expanded dimensions.
    apply: moves a table of entries, whose size is that of the array along
      expanded dimensions and 1 along others.
    key: the change of all rows; ``None`` if they do not change.
  """

  shape: Shape
  dims: Dims
  apply: Callable[[np.ndarray], np.ndarray]
  key: Any = None


def sizes(shape: Shape, dims: Dims) -> Shape:
  """Returns the shape of a table of entries."""
  return tuple(n if i in dims else 1 for i, n in enumerate(shape))


def entries(shape: Shape, dims: Dims) -> int:
  """Returns the number of entries."""
  return math.prod(sizes(shape, dims))


def rows(shape: Shape, dims: Dims) -> list[int]:
  """Returns the dimensions along which rows extend."""
  return [i for i, n in enumerate(shape) if i not in dims and n > 1]


def placed(old: Shape, places: Sequence[int], new: Shape, dims: Dims) -> Move:
  """Moves dimensions to places in their order, and repeats along the others.

  Args:
    old: the shape.
    places: for each dimension that of the result, -1 for one that is left out,
      whose size is 1.
    new: the shape of the result. New dimensions belong to its rows.
    dims: the expanded dimensions.
  """
  pairs = [(i, places[i]) for i in dims if places[i] >= 0]
  kept = frozenset(k for i, k in pairs if old[i] == new[k])
  before = [(places[i], old[i]) for i in rows(old, dims)]
  after = [(k, new[k]) for k in rows(new, kept)]
  apply = _arrangement(places, len(new))
  if before == after:
    return Move(new, kept, apply)
  order = [k for k, _ in after]
  key = tuple(order.index(k) for k, _ in before), tuple(n for _, n in after)
  return Move(new, kept, apply, ('broadcast', *key))


def gathered(places: Sequence[int], new: Shape, dims: Dims, key: Any) -> Move:
  """Looks up rows at computed positions; keeps expanded dimensions whole."""
  kept = frozenset(places[i] for i in dims)
  return Move(new, kept, _arrangement(places, len(new)), key)


def _arrangement(
  places: Sequence[int], rank: int
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns the function that moves the dimensions of tables to places."""

  def apply(x: np.ndarray) -> np.ndarray:
    shape = [1] * rank
    for n, k in zip(x.shape, places):
      if k >= 0:
        shape[k] = n
    return x.reshape(shape)

  return apply


def transposed(shape: Shape, order: Sequence[int], dims: Dims) -> Move:
  """Reorders dimensions."""
  order = tuple(order)
  moved = frozenset(k for k, i in enumerate(order) if i in dims)
  new = tuple(shape[i] for i in order)
  old = rows(shape, dims)
  key = tuple(old.index(order[k]) for k in rows(new, moved))
  changed = None if key == tuple(range(len(key))) else ('transpose', key)
  return Move(new, moved, lambda x: np.transpose(x, order), changed)


def reshaped(shape: Shape, new: Shape, dims: Dims) -> Move | None:
  """Splits and joins dimensions, all of them expanded or none."""
  moved: set[int] = set()
  key = []
  for old, after in reshape_lib.independent_groups(shape, new):
    wide = [i for i in old if shape[i] > 1]
    if wide and all(i in dims for i in wide):
      moved |= set(after)
    elif any(i in dims for i in wide):
      return None
    else:
      old_sizes = tuple(shape[i] for i in wide)
      new_sizes = tuple(new[k] for k in after if new[k] > 1)
      key.append((old_sizes, new_sizes))
  found = frozenset(moved)
  full = sizes(shape, dims)

  def apply(x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, full).reshape(sizes(new, found))

  same = all(x == y for x, y in key)
  changed = None if same else ('reshape', tuple(key))
  return Move(new, found, apply, changed)


def sliced(shape: Shape, dims: Dims, cuts: dict[int, slice]) -> Move:
  """Takes a range of each dimension."""
  new = list(shape)
  key = []
  full = sizes(shape, dims)
  for k, i in enumerate(rows(shape, frozenset())):
    cut = cuts.get(i, slice(None))
    taken = range(*cut.indices(shape[i]))
    new[i] = len(taken)
    if i not in dims and taken != range(shape[i]):
      key.append((k, taken.start, taken.stop, taken.step))
  window = tuple(
    cuts.get(i, slice(None)) if i in dims else slice(None)
    for i in range(len(shape))
  )
  apply = lambda x: np.broadcast_to(x, full)[window]
  return Move(tuple(new), dims, apply, ('slice', tuple(key)) if key else None)


def tiled(shape: Shape, repeats: Sequence[int], dims: Dims) -> Move:
  """Repeats entries along each dimension."""
  new = tuple(n * r for n, r in zip(shape, repeats))
  own = tuple(r if i in dims else 1 for i, r in enumerate(repeats))
  key = tuple(r for i, r in enumerate(repeats) if i not in dims)
  full = sizes(shape, dims)
  apply = lambda x: np.tile(np.broadcast_to(x, full), own)
  return Move(
    new, dims, apply, ('tile', key) if max(key, default=1) > 1 else None
  )
