"""Calls of a mapped program: how many batches each evaluates, and its rows."""

from collections.abc import Iterator, Sequence
import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl.mesh import _place
from wsl.mesh._map import program as program_lib

# A call takes about so many seconds, or the time of one batch.
_SECONDS = 0.25


class Rows(NamedTuple):
  """The results of a call.

  Attributes:
    start: the first candidate among those of each device.
    stop: the candidate after the last one.
    leaves: the flat results, ``[D, stop - start, ...]``.
  """

  start: int
  stop: int
  leaves: list[np.ndarray]


def run(
  program: program_lib.Program,
  bound: Sequence[Any],
  candidates: Sequence[Any],
  devices: int,
  batch: int,
) -> Iterator[Rows]:
  """Evaluates all candidates; one call is computed while rows are consumed.

  Args:
    program: the program of the function.
    bound: the arrays that are bound to it.
    candidates: the leaves of the candidates, ``[N, ...]``.
    devices: D, the devices along the mapped axis.
    batch: the candidates that one device evaluates at once.
  """
  share = len(candidates[0]) // devices
  running: list[tuple[int, int, list[Any]]] = []
  start, last = 0, None

  def finish() -> Rows:
    nonlocal last
    first, count, found = running.pop(0)
    arrays = [_place.to_host(y) for y in found]
    now = time.perf_counter()
    if last is not None:  # The first call may have been compiled.
      program.pace = (now - last) / count
    last = now
    stop = min(first + count * batch, share)
    whole = [y.reshape(devices, -1, *y.shape[1:]) for y in arrays]
    new = [_cut(y, stop - first, count, batch) for y in whole]
    return Rows(first, stop, new)

  while start < share:
    count = min(_batches_of_call(program), math.ceil((share - start) / batch))
    limits = np.int32(start), np.int32(count)
    found = program.run(program.constants, bound, candidates, *limits)
    running.append((start, count, found))
    start += count * batch
    if len(running) > 1:
      yield finish()
  yield finish()


def _batches_of_call(program: program_lib.Program) -> int:
  """Returns how many batches the next call evaluates, by the time of others."""
  # Processes measure different times, but have to make equal calls.
  if program.pace is None or jax.process_count() > 1:
    return 1
  return max(min(int(_SECONDS / max(program.pace, 1e-6)), program.most), 1)


def _cut(rows: np.ndarray, length: int, count: int, batch: int) -> np.ndarray:
  """Returns the rows that are new: the last batch may repeat some."""
  repeated = count * batch - length
  last = (count - 1) * batch
  if not repeated:
    return rows[:, :length]
  new = rows[:, last + repeated : count * batch]
  return np.concatenate([rows[:, :last], new], axis=1) if last else new
