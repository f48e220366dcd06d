"""Primitives that move entries, acting on the entries of some dimensions.

An array is described entry by entry along *expanded* dimensions, such as heads
and their units. What remains of the array at an entry, over the other
dimensions (batch, positions), is its *row*. A move of expanded dimensions moves
entries; a move of the others changes all rows alike, and has a key.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from wsl import jaxprs
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
    key: what happens to rows; ``None`` if they do not change.
  """

  shape: Shape
  dims: Dims
  apply: Callable[[np.ndarray], np.ndarray]
  key: Any = None


def sizes(shape: Shape, dims: Dims) -> Shape:
  """Returns the shape of a table of entries."""
  return tuple(n if i in dims else 1 for i, n in enumerate(shape))


def rows(shape: Shape, dims: Dims) -> list[int]:
  """Returns the dimensions along which rows extend."""
  return [i for i, n in enumerate(shape) if i not in dims and n > 1]


def broadcast(
  old: Shape, places: Sequence[int], new: Shape, dims: Dims
) -> Move:
  """Repeats an array along new dimensions, which belong to its rows.

  Args:
    old: the shape.
    places: the dimension of the result of each dimension.
    new: the shape of the result.
    dims: the expanded dimensions.
  """
  kept = frozenset(places[i] for i in dims if old[i] == new[places[i]])
  before = [(places[i], old[i]) for i in rows(old, dims)]
  after = [(k, new[k]) for k in rows(new, kept)]

  def apply(x: np.ndarray) -> np.ndarray:
    shape = [1] * len(new)
    for i, k in enumerate(places):
      shape[k] = x.shape[i]
    return x.reshape(shape)

  if before == after:
    return Move(new, kept, apply)
  order = [k for k, _ in after]
  key = tuple(order.index(k) for k, _ in before), tuple(n for _, n in after)
  return Move(new, kept, apply, ('broadcast', *key))


def of(step: Any, shape: Shape, dims: Dims, index: int = 0) -> Move | None:
  """Returns the move of a primitive with one operand; None if it is none.

  Args:
    step: the step.
    shape: the shape of the operand.
    dims: its expanded dimensions; of those that a reshape joins all or none.
    index: which result.
  """
  p, name = step.eqn.params, step.name
  if name == 'loop take':
    moved = frozenset(i - 1 for i in dims)
    return Move(shape[1:], moved, lambda x: x[0], ('take',))
  new = jaxprs.shape_of(step.eqn.outvars[index])
  if name in jaxprs.CASTS or name == 'optimization_barrier':
    kind = getattr(p.get('new_dtype'), 'kind', 'f')
    return Move(shape, dims, lambda x: x) if kind in 'fVc' else None
  if name == 'broadcast_in_dim':
    return broadcast(shape, p['broadcast_dimensions'], new, dims)
  if name == 'expand_dims':
    rest = [k for k in range(len(new)) if k not in p['dimensions']]
    return broadcast(shape, rest, new, dims)
  if name == 'squeeze':
    gone = [i for i in range(len(shape)) if i in p['dimensions']]
    kept = [i for i in range(len(shape)) if i not in gone]
    moved = frozenset(kept.index(i) for i in dims if i in kept)
    return Move(new, moved, lambda x: np.squeeze(x, tuple(gone)))
  if name == 'transpose':
    return _transpose(shape, p['permutation'], dims)
  if name == 'reshape':
    return None if p['dimensions'] else _reshape(shape, new, dims)
  if name == 'rev':
    return _slice(
      shape, dims, {i: slice(None, None, -1) for i in p['dimensions']}
    )
  if name == 'slice':
    steps = p['strides'] or (1,) * len(shape)
    limits = zip(p['start_indices'], p['limit_indices'], steps)
    return _slice(shape, dims, {i: slice(*c) for i, c in enumerate(limits)})
  if name == 'split':
    start = sum(p['sizes'][:index])
    cut = slice(start, start + p['sizes'][index])
    return _slice(shape, dims, {p['axis']: cut})
  if name == 'tile':
    return _tile(shape, p['reps'], dims)
  if name == 'dynamic_slice':
    part = {i for i, n in enumerate(p['slice_sizes']) if n != shape[i]}
    key = name, step.results[0].number
    return None if part & dims else Move(new, dims, lambda x: x, key)
  if name == 'gather':
    return _gather(step, shape, new, dims)
  return None


def joined(step: Any, shape: Shape, dims: Dims) -> Dims:
  """Returns the dimensions to expand, since a reshape joins them to others."""
  if step.name != 'reshape':
    return dims
  new = jaxprs.shape_of(step.eqn.outvars[0])
  found = set(dims)
  for before, _ in reshape_lib.independent_groups(shape, new):
    if any(i in dims and shape[i] > 1 for i in before):
      found |= set(before)
  return frozenset(found)


def before(step: Any, shape: Shape, dims: Dims) -> Dims:
  """Returns the operand's dimensions that become given ones of the result.

  Args:
    step: a move.
    shape: the shape of the operand.
    dims: dimensions of the result.
  """
  p, name = step.eqn.params, step.name
  new = jaxprs.shape_of(step.eqn.outvars[0])
  places: Sequence[int]
  if name in ('broadcast_in_dim', 'expand_dims', 'squeeze', 'transpose'):
    if name == 'broadcast_in_dim':
      places = p['broadcast_dimensions']
    elif name == 'expand_dims':
      places = [k for k in range(len(new)) if k not in p['dimensions']]
    elif name == 'transpose':
      places = np.argsort(p['permutation']).tolist()
    else:
      kept = [i for i in range(len(shape)) if i not in p['dimensions']]
      places = [kept.index(i) if i in kept else -1 for i in range(len(shape))]
    return frozenset(i for i, k in enumerate(places) if k in dims)
  if name == 'gather':
    offsets = _offsets(step, len(shape))
    return frozenset(i for i, k in offsets.items() if k in dims)
  if name == 'reshape':
    found: set[int] = set()
    for old, after in reshape_lib.independent_groups(shape, new):
      if any(k in dims and new[k] > 1 for k in after):
        found |= set(old)
    return frozenset(found)
  return dims


def _transpose(shape: Shape, order: Sequence[int], dims: Dims) -> Move:
  """Reorders dimensions."""
  order = tuple(order)
  moved = frozenset(k for k, i in enumerate(order) if i in dims)
  new = tuple(shape[i] for i in order)
  old = rows(shape, dims)
  key = tuple(old.index(order[k]) for k in rows(new, moved))
  changed = None if key == tuple(range(len(key))) else ('transpose', key)
  return Move(new, moved, lambda x: np.transpose(x, order), changed)


def _reshape(shape: Shape, new: Shape, dims: Dims) -> Move | None:
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


def _slice(shape: Shape, dims: Dims, cuts: dict[int, slice]) -> Move:
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


def _tile(shape: Shape, repeats: Sequence[int], dims: Dims) -> Move:
  """Repeats entries along each dimension."""
  new = tuple(n * r for n, r in zip(shape, repeats))
  own = tuple(r if i in dims else 1 for i, r in enumerate(repeats))
  key = tuple(r for i, r in enumerate(repeats) if i not in dims)
  full = sizes(shape, dims)
  apply = lambda x: np.tile(np.broadcast_to(x, full), own)
  return Move(
    new, dims, apply, ('tile', key) if max(key, default=1) > 1 else None
  )


def _offsets(step: Any, rank: int) -> dict[int, int]:
  """Returns the dimension of the result of each one that a gather keeps."""
  numbers = step.eqn.params['dimension_numbers']
  gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
  return dict(
    zip([i for i in range(rank) if i not in gone], numbers.offset_dims)
  )


def _gather(step: Any, shape: Shape, new: Shape, dims: Dims) -> Move | None:
  """Looks up rows, along dimensions that are not expanded."""
  offsets, taken = _offsets(step, len(shape)), step.eqn.params['slice_sizes']
  wide = {i for i in dims if shape[i] > 1}
  if any(i not in offsets or taken[i] != shape[i] for i in wide):
    return None

  def apply(x: np.ndarray) -> np.ndarray:
    out = [1] * len(new)
    for i in wide:
      out[offsets[i]] = x.shape[i]
    return x.reshape(out)

  key = 'gather', step.results[0].number
  return Move(new, frozenset(offsets[i] for i in wide), apply, key)


def entries(shape: Shape, dims: Dims) -> int:
  """Returns the number of entries."""
  return math.prod(sizes(shape, dims))
