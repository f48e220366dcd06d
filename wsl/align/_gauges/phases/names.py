"""Names of the rows of arrays that no phase acts on, equal for equal rows.

The coefficient of an entry is a number times a product of named rows, such as
``-1 * sin[:, f]``. Rows have one name if they are computed by equal equations
from equal rows, or are equal constants up to a sign. Rows of other arrays have
names of their own, so names that differ may still be equal.
"""

from collections.abc import Iterator, Sequence
import itertools
from typing import Any, NamedTuple

import numpy as np

from wsl.align._find import axis_facts
from wsl.align._find.rules import elementwise
from wsl.align._gauges.phases import coefficients, moves, primitive_moves

_MOVES = (
  'broadcast_in_dim', 'dynamic_slice', 'expand_dims', 'gather', 'reshape',
  'rev', 'slice', 'squeeze', 'tile', 'transpose',
)  # fmt: skip
_DEPTH = 64  # equations; rows of longer chains have names of their own
_LIMIT = 1 << 16  # entries


class Names(NamedTuple):
  """Names of the rows of a function's arrays.

  Attributes:
    store: the coefficients.
    origins: the step that computes an array, by the number of the array; none
      for arrays that a loop changes.
    tables: the coefficients of arrays that were named, by the array and its
      expanded dimensions.
    fresh: numbers of arrays that have none.
  """

  store: coefficients.Store
  origins: dict[int, axis_facts.Step]
  tables: dict[Any, np.ndarray]
  fresh: Iterator[int]


def begin(steps: Sequence[axis_facts.Step]) -> Names:
  """Returns names of no array yet."""
  origins = {
    value.number: step
    for step in steps
    if not step.name.startswith('loop')
    for value in step.results
  }
  return Names(coefficients.store(), origins, {}, itertools.count())


def of(
  c: Names, value: axis_facts.Value, dims: moves.Dims, depth: int
) -> np.ndarray:
  """Returns the coefficients of an array, expanded along some dimensions."""
  shape = tuple(axis.size for axis in value.axes)
  dims = frozenset(i for i in dims if shape[i] > 1)
  owner = value.number if value.constant is None else id(value.constant)
  key = owner, value.constant is None, dims
  if key not in c.tables:
    table = None
    if value.constant is not None:
      table = _constant(c, value.constant.array(), dims)
    elif depth < _DEPTH and value.number in c.origins:
      table = _computed(c, c.origins[value.number], shape, dims, depth)
    if table is None:
      table = _new(c, key, moves.sizes(shape, dims))
    if not value.number and value.constant is None:
      return table
    c.tables[key] = table
  return c.tables[key]


def _new(c: Names, key: Any, shape: moves.Shape) -> np.ndarray:
  """Names the rows of an array of which nothing is known."""
  if not key[0]:
    key = (*key, next(c.fresh))
  index = range(int(np.prod(shape)))
  found = [coefficients.row(c.store, (key, i)) for i in index]
  return np.asarray(found).reshape(shape)


def _constant(c: Names, array: Any, dims: moves.Dims) -> np.ndarray | None:
  """Names the rows of a constant by their values, or gives their number."""
  if array is None or array.dtype.kind not in 'biufcV':
    return None
  array = np.asarray(array)
  wide = np.complex128 if array.dtype.kind == 'c' else np.float64
  if array.dtype.kind in 'iu' and array.size and abs(array).max() >= 2**53:
    return None
  array = array.astype(wide) + 0.0  # one zero
  order = sorted(dims)
  first = np.moveaxis(array, order, range(len(order)))
  shape = tuple(n for n in first.shape[len(order) :] if n > 1)
  table = first.reshape(*first.shape[: len(order)], -1)
  found = [_row(c, row, shape) for row in table.reshape(-1, table.shape[-1])]
  return np.asarray(found).reshape(moves.sizes(array.shape, dims))


def _row(c: Names, row: np.ndarray, shape: moves.Shape) -> int:
  """Names a row of a constant: the sign of its first entry is a number."""
  if (row == row[0]).all():
    return coefficients.of(c.store, row[0].item())
  lead = row[np.flatnonzero(row)[0]]
  sign = -1.0 if (lead.real, lead.imag) < (0.0, 0.0) else 1.0
  name = coefficients.name(
    c.store, ('constant', shape, (row * sign + 0.0).tobytes())
  )
  return coefficients.of(c.store, sign, [name])


def _computed(
  c: Names,
  step: axis_facts.Step,
  shape: moves.Shape,
  dims: moves.Dims,
  depth: int,
) -> np.ndarray | None:
  """Names the rows of a result by the rows of the operands."""
  name, p = step.name, step.eqn.params
  inner = lambda value, dims: of(c, value, dims, depth + 1)
  if name in _MOVES:
    old = tuple(axis.size for axis in step.args[0].axes)
    dims_in = primitive_moves.before(step, old, dims)
    move = primitive_moves.of(step, old, dims_in)
    if move is None or moves.entries(old, dims_in) > _LIMIT:
      return None
    table = move.apply(inner(step.args[0], dims_in))
    table = coefficients.moved(c.store, move.key, table)
    return _joined(c, table, [i for i in move.dims if i not in dims])
  if name == 'concatenate' and p['dimension'] in dims:
    tables = [inner(v, dims) for v in step.args]
    full = [
      np.broadcast_to(t, moves.sizes(tuple(a.size for a in v.axes), dims))
      for t, v in zip(tables, step.args)
    ]
    return np.concatenate(full, p['dimension'])
  if name == 'neg':
    return coefficients.scaled(c.store, inner(step.args[0], dims), -1.0)
  if name == 'dot_general':
    return _dot(c, step, dims, inner)
  if name not in elementwise.ELEMENTWISE or len(step.results) > 1:
    return None
  tables = [aligned(c, v, shape, dims, depth + 1) for v in step.args]
  if name == 'mul':
    return coefficients.times(c.store, *tables)
  try:
    key = name, tuple(sorted(p.items(), key=lambda x: x[0]))
    hash(key)
  except TypeError:
    return None
  if name == 'convert_element_type' and p['new_dtype'].kind in 'fVc':
    return tables[0]
  return coefficients.computed(c.store, key, *tables)


def aligned(
  c: Names,
  value: axis_facts.Value,
  shape: moves.Shape,
  dims: moves.Dims,
  depth: int = 0,
) -> np.ndarray:
  """Returns the coefficients of an operand in the shape of a result."""
  old = tuple(axis.size for axis in value.axes)
  places = range(len(old))
  table = of(c, value, frozenset(i for i in dims if i < len(old)), depth)
  expanded = frozenset(i for i in dims if i < len(old) and old[i] > 1)
  # Dimensions of size 1 are repeated: they are in no row.
  kept = tuple(1 if i in dims else n for i, n in enumerate(shape))
  short = tuple(1 if i in expanded else n for i, n in enumerate(old))
  move = moves.placed(short, places, kept, frozenset())
  return coefficients.moved(
    c.store, move.key, table.reshape(table.shape or (1,) * len(shape))
  )


def _joined(c: Names, table: np.ndarray, gone: Sequence[int]) -> np.ndarray:
  """Names rows that extend along dimensions that are expanded too far."""
  for i in gone:
    if table.shape[i] > 1:
      parts = [np.take(table, [k], i) for k in range(table.shape[i])]
      table = coefficients.computed(c.store, ('along', i), *parts)
  return table


def _dot(
  c: Names, step: axis_facts.Step, dims: moves.Dims, inner: Any
) -> np.ndarray | None:
  """Names a product of arrays by the rows that it contracts."""
  (cx, cy), (bx, by) = step.eqn.params['dimension_numbers']
  x, y = step.args
  free = [
    [i for i in range(len(x.axes)) if i not in (*cx, *bx)],
    [i for i in range(len(y.axes)) if i not in (*cy, *by)],
  ]
  if bx and any(k < len(bx) for k in dims):
    return None
  # Results are ordered: batch, free of x, free of y.
  tables, start = [], len(bx)
  rank = start + sum(map(len, free))
  for value, own in zip((x, y), free):
    places = {i: start + k for k, i in enumerate(own)}
    table = inner(value, frozenset(i for i in own if places[i] in dims))
    shape = [1] * rank
    for i, k in places.items():
      shape[k] = table.shape[i]
    tables.append(table.reshape(shape))
    start += len(own)
  old = tuple(tuple(axis.size for axis in v.axes) for v in (x, y))
  key = 'dot', step.eqn.params['dimension_numbers'], old
  return coefficients.computed(c.store, key, *tables)
