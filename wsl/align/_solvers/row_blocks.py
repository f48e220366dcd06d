"""Passes over large arrays, in blocks of rows that threads share.

NumPy releases the interpreter's lock inside of its loops. The blocks do not
depend on the number of threads, and their results keep their order, so neither
does any result.
"""

import collections
from collections.abc import Callable
from concurrent import futures
import functools
import os
from typing import Any, TypeVar

_ENTRIES = 2**17  # of a block, which stays in a core's cache
_LEAST = 4  # blocks for each thread, so that most of an array is not copied
_MAX_THREADS = 8  # more take longer to begin than they save

T = TypeVar('T')


def run(function: Callable[[slice], T], rows: int, *, entries: int) -> list[T]:
  """Calls a function of some rows for all blocks of rows, in threads.

  Args:
    function: writes to no memory that it does not own, except to its rows.
    rows: their number.
    entries: the number of entries of a row.

  Returns:
    The results of the blocks, in order.
  """
  length = max(1, _ENTRIES // max(1, entries))
  blocks = [
    slice(start, min(start + length, rows)) for start in range(0, rows, length)
  ]
  count = min(_threads(), len(blocks) // _LEAST)
  if count < 2:
    return [function(block) for block in blocks]
  results: list[Any] = [None] * len(blocks)
  waiting = collections.deque(range(len(blocks)))

  def work() -> None:
    while waiting:
      try:
        index = waiting.popleft()
      except IndexError:  # another thread took the last one
        return
      results[index] = function(blocks[index])

  # A child process has no threads of its parent's pool.
  pool = _pool(os.getpid())
  helpers = [pool.submit(work) for _ in range(count - 1)]
  work()
  for helper in helpers:
    if not helper.cancel():  # it had begun
      helper.result()
  return results


@functools.cache
def _threads() -> int:
  """Returns the number of threads, at most that of the available cores."""
  affinity = getattr(os, 'sched_getaffinity', None)
  cores = len(affinity(0)) if affinity else os.cpu_count() or 1
  return min(cores, _MAX_THREADS)


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> futures.ThreadPoolExecutor:
  """Returns the threads of a process."""
  del process
  return futures.ThreadPoolExecutor(_threads(), 'wsl-align')
