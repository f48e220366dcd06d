"""Planning a save from shapes alone."""

from collections.abc import Iterable, Sequence
import math
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from wsl import tree, types
from wsl.checkpoint import _load
from wsl.checkpoint._plan import memory, mistakes, rows
from wsl.checkpoint._plan import probe as probe_lib
from wsl.checkpoint._read import pause

# Seconds to compile a program, about.
_COMPILE = 0.25


def plan(
  what: types.Params | str | os.PathLike[str],
  *,
  path: str | os.PathLike[str] | None = None,
  shard_bytes: int | None = None,
  chunk_bytes: int = tree.CHUNK_BYTES,
  probe: bool = False,
) -> rows.Plan:
  """Computes what ``save`` would read, write and hold, without reading leaves.

  Statistics, such as the thresholds of ``merge.ties``, are computed by ``save``
  before the leaves that need them; their passes over the files are estimates.
  The scratch memory of a leaf that is computed as a whole is the compiler's
  estimate, obtained once for each expression, shapes and dtypes.

  Args:
    what: parameters, on demand or not, or a path as in ``load``.
    path: the target of the save, to check it; None if it is not known.
    shard_bytes: as in ``save``.
    chunk_bytes: as in ``save``.
    probe: whether to measure the disk and the memory for about one second, to
      estimate the time; it reads bytes of the files, and writes a temporary
      file beside ``path``.

  Returns:
    The plan: sizes in bytes; ``str(plan)`` is a table. What would stop the save
    is in ``plan.mistakes``.

  Raises:
    FileNotFoundError: if the path does not exist.
    ValueError: if a file is damaged.

  Example:
    >>> import numpy as np
    >>> from wsl import checkpoint
    >>> print(checkpoint.plan({'w': np.ones((2, 3), np.float32)}))
    1 leaves, read 0 B, write 24 B, hold 24 B at once
      w  float32[2, 3]: read 0 B, write 24 B, hold 24 B, copied
  """
  if isinstance(what, (str, os.PathLike)):
    what = _load.load(what, lazy=True)
  with pause.collection():
    named = tree.named(what)
    entries = sum(math.prod(np.shape(leaf)) for leaf in named.values())
    meter = memory.Meter(chunk_bytes, entries)
    leaves = tuple(_leaf(name, leaf, meter) for name, leaf in named.items())
    found = _statistics(named.values())
    statistics = tuple(map(_statistic, found))
    read_by_statistics = [x for s in found for x in s.over]
    stored = _stored([*named.values(), *read_by_statistics])
    held = max(map(meter.of_statistic, read_by_statistics), default=0)
    result = rows.Plan(
      leaves,
      sum(leaf.bytes_in for leaf in leaves)
      + sum(x.bytes_in for x in statistics),
      sum(leaf.bytes_out for leaf in leaves),
      max(_peak(leaves), held, meter.together),
      statistics,
    )
    target = None if path is None else pathlib.Path(path)
    programs = len(meter.programs)
    result = result._replace(
      process_bytes=_process(result, programs, meter.kept),
      mistakes=mistakes.find(
        result, stored, target, sharded=shard_bytes is not None
      ),
    )
  if probe:
    folder = pathlib.Path(tempfile.gettempdir()) if target is None else target
    files = [file.path for file in mistakes.files(stored)]
    rates = probe_lib.measure([f for f in files if f.exists()], folder)
    seconds = _seconds(result, rates) + _COMPILE * programs
    result = result._replace(rates=rates, seconds=seconds)
  return result


def _leaf(name: str, leaf: Any, meter: memory.Meter) -> rows.LeafPlan:
  """Plans one leaf."""
  leaf = leaf if hasattr(leaf, 'dtype') else np.asarray(leaf)
  bytes_in, bytes_out = _bytes_in(leaf), memory.nbytes(leaf)
  how, peak = meter.of(leaf, bytes_in, bytes_out)
  shape = tuple(leaf.shape)
  return rows.LeafPlan(name, shape, leaf.dtype, bytes_in, bytes_out, peak, how)


def _bytes_in(leaf: Any) -> int:
  """Returns the bytes of the stored leaves that a leaf depends on."""
  return sum(memory.nbytes(x) for x in _inputs(leaf, tree.Stored))


def _inputs(leaf: Any, kind: type) -> list[Any]:
  """Returns the inputs of a leaf that are of some kind."""
  if not isinstance(leaf, tree.Computed):
    return [leaf] if isinstance(leaf, kind) else []
  return [x for x in tree.inputs(leaf) if isinstance(x, kind)]


def _statistics(leaves: Iterable[Any]) -> list[tree.Statistic]:
  """Returns the statistics that leaves depend on, directly or not."""
  found: dict[int, tree.Statistic] = {}
  queue = list(leaves)
  while queue:
    for x in _inputs(queue.pop(), tree.Statistic):
      if id(x) not in found:
        found[id(x)] = x
        queue.extend(x.over)
  return list(found.values())


def _statistic(x: tree.Statistic) -> rows.StatisticPlan:
  """Plans one statistic."""
  bytes_in = x.passes * sum(map(_bytes_in, x.over))
  return rows.StatisticPlan(x.shape, len(x.over), x.passes, bytes_in)


def _stored(leaves: Iterable[Any]) -> list[tree.Stored]:
  """Returns the stored leaves that leaves depend on, each of them once."""
  found = {id(x): x for leaf in leaves for x in _inputs(leaf, tree.Stored)}
  return list(found.values())


def _peak(leaves: Sequence[rows.LeafPlan]) -> int:
  """Returns the largest memory of leaves, in the order of a file.

  Chunks of small leaves are in memory together, but not more than those of the
  largest. A whole leaf is written while the next one is computed.
  """
  order = sorted(leaves, key=lambda leaf: -leaf.dtype.itemsize)
  written = [0, *(x.bytes_out if _is_whole(x) else 0 for x in order)]
  held = [leaf.peak_bytes + out for leaf, out in zip(order, written)]
  together = sum(x.peak_bytes for x in leaves if x.how != 'whole')
  chunked = [x.peak_bytes for x in leaves if x.how == 'in chunks']
  return max([*held, min(together, max(chunked, default=0))], default=0)


def _is_whole(leaf: rows.LeafPlan) -> bool:
  """Returns whether a leaf is written as one piece that its reader allocates.

  A copy in memory at two times its size is one that is decoded.
  """
  decoded = leaf.how == 'copied' and leaf.peak_bytes >= 2 * leaf.bytes_out
  return leaf.how == 'whole' or (decoded and leaf.bytes_in > 0)


def _process(plan: rows.Plan, programs: int, kept: int) -> int:
  """Returns the resident memory at the peak."""
  # A search of thresholds takes a sample, counts, collects and sorts.
  programs += 5 * bool(plan.statistics)
  now = memory.resident(programs > 0)
  held = programs * memory.PROGRAM + kept + plan.peak_bytes
  return now + held if now else 0


def _seconds(plan: rows.Plan, rates: probe_lib.Rates) -> float:
  """Returns the time of a save without that of compilations.

  Reading, computing and writing overlap, so that the slowest counts; during the
  passes of statistics nothing is written.
  """
  passes = sum(x.bytes_in for x in plan.statistics)
  leaves = plan.bytes_in - passes
  moved = leaves + plan.bytes_out
  write = plan.bytes_out / rates.write
  last = max(leaves / rates.read, moved / rates.memory, write)
  return last + max(passes / rates.read, passes / rates.memory)
