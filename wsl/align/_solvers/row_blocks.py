"""Passes over large arrays in blocks of rows, which stay in the cache."""

from collections.abc import Callable
from typing import TypeVar

_ENTRIES = 2**17  # of a block

T = TypeVar('T')


def run(function: Callable[[slice], T], rows: int, *, entries: int) -> list[T]:
  """Calls a function of some rows for all blocks of rows, in order.

  Threads would not save time: the passes take less than the products between
  them, which have threads of their own.

  Args:
    function: called with a slice of rows.
    rows: their number.
    entries: the number of entries of a row.

  Returns:
    The results of the blocks.
  """
  length = max(1, _ENTRIES // max(1, entries))
  starts = range(0, rows, length)
  return [function(slice(i, min(i + length, rows))) for i in starts]
