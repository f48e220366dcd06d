"""Names of the rows of arrays that no phase acts on, equal for equal rows.

The coefficient of an entry is a number times a product of named rows, such as
``-1 * sin[:, f]``. Rows have one name if they are computed by equal equations
from equal rows, or are equal constants up to a sign. Rows of other arrays have
names of their own, so names that differ may still be equal.
"""

from collections.abc import Callable, Hashable, Sequence
import itertools
from typing import Any

import numpy as np

from wsl.align._find import axis_facts
from wsl.align._find.rules import elementwise
from wsl.align._gauges.phases import moves

_MOVES = (
  'broadcast_in_dim', 'dynamic_slice', 'expand_dims', 'gather', 'reshape',
  'rev', 'slice', 'squeeze', 'tile', 'transpose',
)  # fmt: skip
_DEPTH = 64  # equations; rows of longer chains have names of their own
_LIMIT = 1 << 16  # entries


class Names:
  """Names of rows, and products of them.

  Attributes:
    coefficients: a number and the names that it multiplies, by index. The
      tables of entries hold these indices.
  """

  def __init__(self, steps: Sequence[axis_facts.Step]) -> None:
    self.coefficients: list[tuple[complex, tuple[int, ...]]] = []
    self._index: dict[Any, int] = {}
    self._names: dict[Hashable, int] = {}
    self._tables: dict[Any, np.ndarray] = {}
    self._stored: dict[Hashable, dict[Any, int]] = {}
    self._fresh = itertools.count()
    self._source = {
      v.number: (step, i)
      for step in steps
      if not step.name.startswith('loop')
      for i, v in enumerate(step.results)
    }
    self.zero = self.coefficient(0.0)
    self.one = self.coefficient(1.0)

  def coefficient(self, number: complex, names: Sequence[int] = ()) -> int:
    """Returns the index of a number times named rows."""
    key = number, tuple(sorted(names)) if number else ()
    if key not in self._index:
      self._index[key] = len(self.coefficients)
      self.coefficients.append(key)
    return self._index[key]

  def named(self, key: Hashable) -> int:
    """Returns the index of a row with a name."""
    return self.coefficient(1.0, [self.name(key)])

  def name(self, key: Hashable) -> int:
    """Returns the name of a row that is computed in a given way."""
    return self._names.setdefault(key, len(self._names))

  def map(
    self, fn: Callable[..., int], *tables: np.ndarray, key: Hashable = None
  ) -> np.ndarray:
    """Applies a function to all entries, once for equal ones.

    Args:
      fn: the function.
      *tables: tables of coefficients.
      key: identifies the function, to store its values; None for none.
    """
    stored = {} if key is None else self._stored.setdefault(key, {})
    if all(table.size == 1 for table in tables):
      rank = max(table.ndim for table in tables)
      value = fn(*(table.item() for table in tables))
      return np.full((1,) * rank, value)
    tables = tuple(np.broadcast_arrays(*tables))
    code = tables[0].astype(np.int64)
    for table in tables[1:]:
      code = code * len(self.coefficients) + table
      if len(tables) > 2:
        code = np.unique(code, return_inverse=True)[1].reshape(code.shape)
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    columns = [table.ravel()[first].tolist() for table in tables]
    rows = [*zip(*columns)]
    for row in rows:
      if row not in stored:
        stored[row] = fn(*row)
    values = np.asarray([stored[row] for row in rows], np.int64)
    return values[inverse].reshape(code.shape)

  def times(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Multiplies coefficients."""
    if x.size == 1 and x.item() == self.one:
      return y
    if y.size == 1 and y.item() == self.one:
      return x
    return self.map(self._product, x, y, key='product')

  def scaled(self, x: np.ndarray, number: complex) -> np.ndarray:
    """Multiplies coefficients by a number."""
    return self.map(lambda a: self._times(a, number), x, key=number)

  def _product(self, a: int, b: int) -> int:
    (x, left), (y, right) = self.coefficients[a], self.coefficients[b]
    return self.coefficient(x * y, left + right)

  def _times(self, a: int, number: complex) -> int:
    x, names = self.coefficients[a]
    return self.coefficient(x * number, names)

  def changed(self, key: Any, x: np.ndarray) -> np.ndarray:
    """Returns coefficients whose rows a move has changed, see ``Move``."""

    def one(index: int) -> int:
      number, names = self.coefficients[index]
      return self.coefficient(number, [self.name((key, n)) for n in names])

    return x if key is None else self.map(one, x, key=('move', key))

  def of(
    self, value: axis_facts.Value, dims: moves.Dims, depth: int = 0
  ) -> np.ndarray:
    """Returns the coefficients of an array, expanded along some dimensions."""
    shape = tuple(axis.size for axis in value.axes)
    dims = frozenset(i for i in dims if shape[i] > 1)
    owner = value.number if value.constant is None else id(value.constant)
    key = owner, value.constant is None, dims
    if key not in self._tables:
      table = None
      if value.constant is not None:
        table = self._constant(value.constant.array(), dims)
      elif depth < _DEPTH and value.number in self._source:
        table = self._computed(*self._source[value.number], shape, dims, depth)
      if table is None:
        table = self._new(key, moves.sizes(shape, dims))
      if not value.number and value.constant is None:
        return table
      self._tables[key] = table
    return self._tables[key]

  def _new(self, key: Any, shape: moves.Shape) -> np.ndarray:
    """Names the rows of an array of which nothing is known."""
    if not key[0]:
      key = (*key, next(self._fresh))
    index = range(int(np.prod(shape)))
    return np.asarray([self.named((key, i)) for i in index]).reshape(shape)

  def _constant(self, array: Any, dims: moves.Dims) -> np.ndarray | None:
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
    found = [
      self._row(row, shape) for row in table.reshape(-1, table.shape[-1])
    ]
    return np.asarray(found).reshape(moves.sizes(array.shape, dims))

  def _row(self, row: np.ndarray, shape: moves.Shape) -> int:
    """Names a row of a constant: the sign of its first entry is a number."""
    if (row == row[0]).all():
      return self.coefficient(row[0].item())
    lead = row[np.flatnonzero(row)[0]]
    sign = -1.0 if (lead.real, lead.imag) < (0.0, 0.0) else 1.0
    name = self.name(('constant', shape, (row * sign + 0.0).tobytes()))
    return self.coefficient(sign, [name])

  def _computed(
    self,
    step: axis_facts.Step,
    index: int,
    shape: moves.Shape,
    dims: moves.Dims,
    depth: int,
  ) -> np.ndarray | None:
    """Names the rows of a result by the rows of the operands."""
    name, p = step.name, step.eqn.params
    inner = lambda value, dims: self.of(value, dims, depth + 1)
    if name in _MOVES:
      old = tuple(axis.size for axis in step.args[0].axes)
      dims_in = moves.before(step, old, dims)
      move = moves.of(step, old, dims_in)
      if move is None or moves.entries(old, dims_in) > _LIMIT:
        return None
      table = move.apply(inner(step.args[0], dims_in))
      table = self.changed(move.key, table)
      return self._joined(table, [i for i in move.dims if i not in dims])
    if name == 'concatenate' and p['dimension'] in dims:
      tables = [inner(v, dims) for v in step.args]
      full = [
        np.broadcast_to(t, moves.sizes(tuple(a.size for a in v.axes), dims))
        for t, v in zip(tables, step.args)
      ]
      return np.concatenate(full, p['dimension'])
    if name == 'neg':
      return self.scaled(inner(step.args[0], dims), -1.0)
    if name == 'dot_general':
      return self._dot(step, dims, inner)
    if name not in elementwise.ELEMENTWISE or len(step.results) > 1:
      return None
    tables = [self.aligned(v, shape, dims, depth + 1) for v in step.args]
    if name == 'mul':
      return self.times(*tables)
    try:
      key = name, tuple(sorted(p.items(), key=lambda x: x[0]))
      hash(key)
    except TypeError:
      return None
    if name == 'convert_element_type' and p['new_dtype'].kind in 'fVc':
      return tables[0]
    return self.map(lambda *row: self.named((key, row)), *tables)

  def aligned(
    self,
    value: axis_facts.Value,
    shape: moves.Shape,
    dims: moves.Dims,
    depth: int = 0,
  ) -> np.ndarray:
    """Returns the coefficients of an operand in the shape of a result."""
    old = tuple(axis.size for axis in value.axes)
    places = range(len(old))
    table = self.of(value, frozenset(i for i in dims if i < len(old)), depth)
    expanded = frozenset(i for i in dims if i < len(old) and old[i] > 1)
    # Dimensions of size 1 are repeated: they are in no row.
    kept = tuple(1 if i in dims else n for i, n in enumerate(shape))
    short = tuple(1 if i in expanded else n for i, n in enumerate(old))
    move = moves.broadcast(short, places, kept, frozenset())
    return self.changed(
      move.key, table.reshape(table.shape or (1,) * len(shape))
    )

  def _joined(self, table: np.ndarray, gone: Sequence[int]) -> np.ndarray:
    """Names rows that extend along dimensions that are expanded too far."""
    for i in gone:
      if table.shape[i] > 1:
        parts = [np.take(table, [k], i) for k in range(table.shape[i])]
        one = lambda *row, i=i: self.named(('along', i, row))
        table = self.map(one, *parts)
    return table

  def _dot(
    self, step: axis_facts.Step, dims: moves.Dims, inner: Any
  ) -> np.ndarray | None:
    """Names a product of arrays by the rows that it contracts."""
    (cx, cy), (bx, by) = step.eqn.params['dimension_numbers']
    x, y = step.args
    free = [
      [i for i in range(len(v.axes)) if i not in (*c, *b)]
      for v, c, b in ((x, cx, bx), (y, cy, by))
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
    return self.map(lambda *row: self.named((key, row)), *tables)
