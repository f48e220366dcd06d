"""The content of a plan, and its table."""

import collections
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from wsl.checkpoint import _format
from wsl.checkpoint._plan import probe

_SHOWN = 10


class LeafPlan(NamedTuple):
  """One leaf: its shape, dtype and bytes.

  Attributes:
    name: the leaf's name.
    shape: its shape.
    dtype: its dtype.
    bytes_in: bytes read from files, without those of statistics.
    bytes_out: bytes written.
    peak_bytes: memory needed to compute it.
    how: ``'in chunks'``, ``'whole'`` or ``'copied'``: whether it is computed in
      chunks of fixed size, as a whole, or not at all.
  """

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  bytes_in: int
  bytes_out: int
  peak_bytes: int
  how: str


class StatisticPlan(NamedTuple):
  """A statistic that is computed before the leaves that depend on it.

  Attributes:
    shape: its shape.
    leaves: the number of leaves that it reads.
    passes: how often it reads each of them, about.
    bytes_in: bytes read from files in all passes.
  """

  shape: tuple[int, ...]
  leaves: int
  passes: int
  bytes_in: int


class Plan(NamedTuple):
  """All leaves, and totals; ``str(plan)`` is a table of the largest.

  Attributes:
    leaves: a ``LeafPlan`` for each leaf.
    bytes_in: bytes read from files, those of statistics included.
    bytes_out: bytes written.
    peak_bytes: the largest memory in use at one time: chunks or a leaf, and
      what is being written. Arrays already in memory and the compiled programs
      are not included.
    statistics: a ``StatisticPlan`` for each statistic.
    process_bytes: the resident memory of this process at the peak of the save,
      about: what it has now, the compiled programs, and ``peak_bytes``.
    mistakes: what would stop the save, a line each.
    rates: the measured rates of the disk and the memory; None without a probe.
    seconds: the time of the save at these rates, about; None without a probe.
  """

  leaves: tuple[LeafPlan, ...]
  bytes_in: int
  bytes_out: int
  peak_bytes: int
  statistics: tuple[StatisticPlan, ...] = ()
  process_bytes: int = 0
  mistakes: tuple[str, ...] = ()
  rates: probe.Rates | None = None
  seconds: float | None = None

  def __str__(self) -> str:
    """Returns the totals and a line for each of the largest leaves."""
    return '\n'.join(_lines(self))


def _lines(plan: Plan) -> Iterator[str]:
  """Yields the lines of a plan's table."""
  human = _format.format_bytes
  yield (
    f'{len(plan.leaves)} leaves, read {human(plan.bytes_in)}, write '
    f'{human(plan.bytes_out)}, hold {human(plan.peak_bytes)} at once'
  )
  largest = sorted(plan.leaves, key=lambda leaf: -leaf.peak_bytes)[:_SHOWN]
  cells = [
    (
      leaf.name,
      f'{leaf.dtype}{list(leaf.shape)}:',
      f'read {human(leaf.bytes_in)},',
      f'write {human(leaf.bytes_out)},',
      f'hold {human(leaf.peak_bytes)},',
    )
    for leaf in largest
  ]
  widths = [max(map(len, column)) for column in zip(*cells)]
  for row, leaf in zip(cells, largest):
    name, *rest = map(str.ljust, row, widths)
    yield f'  {name}  {" ".join(rest)} {leaf.how}'
  if len(plan.leaves) > _SHOWN:
    yield f'  and {len(plan.leaves) - _SHOWN} smaller ones'
    counts = collections.Counter(leaf.how for leaf in plan.leaves)
    yield '  ' + ', '.join(f'{n} {how}' for how, n in counts.items())
  if plan.statistics:
    passes = sum(x.passes * x.leaves for x in plan.statistics)
    read = sum(x.bytes_in for x in plan.statistics)
    yield (
      f'statistics: {len(plan.statistics)}, about {passes} more reads of a '
      f'leaf, {human(read)} of the above'
    )
  if plan.process_bytes and plan.bytes_in:
    yield f'the process: about {human(plan.process_bytes)} at its peak'
  if plan.rates is not None and plan.seconds is not None:
    rates = ', '.join(
      f'{name} {human(int(rate))}/s'
      for name, rate in plan.rates._asdict().items()
    )
    yield f'about {plan.seconds:.1f} s ({rates})'
  for mistake in plan.mistakes:
    yield f'MISTAKE: {mistake}'
