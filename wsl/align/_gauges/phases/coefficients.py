"""Coefficients: numbers times products of named rows, as ``-1 * sin[:, f]``.

Each coefficient is stored once, and tables of entries hold its index. So
equal entries are found by comparing integers, and a function of coefficients
is evaluated once for each of its different arguments.
"""

from collections.abc import Callable, Hashable, Sequence
import functools
from typing import Any, NamedTuple

import numpy as np

ZERO, ONE = 0, 1  # the indices of these numbers


class Store(NamedTuple):
  """The coefficients of a function; it grows as they are computed.

  Attributes:
    entries: by index, a number and the names that it multiplies.
    indices: the index of each entry.
    names: the name of each row, by the way in which it is computed.
    values: of functions of coefficients, by the key of the function and its
      arguments.
  """

  entries: list[tuple[complex, tuple[int, ...]]]
  indices: dict[Any, int]
  names: dict[Hashable, int]
  values: dict[Hashable, dict[Any, int]]


def store() -> Store:
  """Returns a store of the numbers 0 and 1."""
  new = Store([], {}, {}, {})
  for number in (0.0, 1.0):
    of(new, number)
  return new


def of(c: Store, number: complex, names: Sequence[int] = ()) -> int:
  """Returns the index of a number times named rows."""
  key = number, tuple(sorted(names)) if number else ()
  if key not in c.indices:
    c.indices[key] = len(c.entries)
    c.entries.append(key)
  return c.indices[key]


def name(c: Store, key: Hashable) -> int:
  """Returns the name of a row that is computed in a given way."""
  return c.names.setdefault(key, len(c.names))


def row(c: Store, key: Hashable) -> int:
  """Returns the index of a row that is computed in a given way."""
  return of(c, 1.0, [name(c, key)])


def map_entries(
  c: Store,
  fn: Callable[..., int],
  *tables: np.ndarray,
  key: Hashable = None,
) -> np.ndarray:
  """Applies a function to all entries of tables, once to equal ones.

  Args:
    c: the coefficients.
    fn: a function of indices.
    *tables: tables of indices, which are broadcast.
    key: identifies the function, to store its values; None for none.
  """
  stored = {} if key is None else c.values.setdefault(key, {})
  if all(table.size == 1 for table in tables):
    rank = max(table.ndim for table in tables)
    value = fn(*(table.item() for table in tables))
    return np.full((1,) * rank, value)
  tables = tuple(np.broadcast_arrays(*tables))
  # Arguments as one integer, renumbered after each if there are three or more,
  # so that it does not overflow.
  code = tables[0].astype(np.int64)
  for table in tables[1:]:
    code = code * len(c.entries) + table
    if len(tables) > 2:
      code = np.unique(code, return_inverse=True)[1].reshape(code.shape)
  _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
  columns = [table.ravel()[first].tolist() for table in tables]
  arguments = [*zip(*columns)]
  for given in arguments:
    if given not in stored:
      stored[given] = fn(*given)
  values = np.asarray([stored[given] for given in arguments], np.int64)
  return values[inverse].reshape(code.shape)


def computed(c: Store, key: Hashable, *tables: np.ndarray) -> np.ndarray:
  """Names the rows that an operation computes from rows of its operands.

  Args:
    c: the coefficients.
    key: identifies the operation.
    *tables: the coefficients of the operands, which are broadcast.
  """
  return map_entries(c, lambda *given: row(c, (key, given)), *tables)


def times(c: Store, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Multiplies coefficients."""
  if x.size == 1 and x.item() == ONE:
    return y
  if y.size == 1 and y.item() == ONE:
    return x
  return map_entries(c, functools.partial(_product, c), x, y, key='product')


def _product(c: Store, a: int, b: int) -> int:
  """Multiplies two coefficients."""
  (x, left), (y, right) = c.entries[a], c.entries[b]
  return of(c, x * y, left + right)


def scaled(c: Store, x: np.ndarray, number: complex) -> np.ndarray:
  """Multiplies coefficients by a number."""

  def one(index: int) -> int:
    value, names = c.entries[index]
    return of(c, value * number, names)

  return map_entries(c, one, x, key=number)


def moved(c: Store, key: Any, x: np.ndarray) -> np.ndarray:
  """Returns coefficients whose rows a move has changed, see ``moves.Move``."""

  def one(index: int) -> int:
    number, names = c.entries[index]
    return of(c, number, [name(c, (key, n)) for n in names])

  return x if key is None else map_entries(c, one, x, key=('move', key))
