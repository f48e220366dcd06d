"""The plan of a merge within a limit of memory."""

from collections.abc import Mapping
import pathlib
from typing import Any

from wsl import checkpoint, tree

_LEAST_CHUNK = 1 << 16


def plan(
  params: Mapping[str, Any],
  out: pathlib.Path | None,
  *,
  chunk_bytes: int | None,
  max_memory: int | None,
  probe: bool,
  beside: int = 0,
) -> tuple[checkpoint.Plan, int]:
  """Plans a merge with the largest chunks that its memory allows.

  Args:
    params: the merged model.
    out: its folder; None if it is not known.
    chunk_bytes: the size of chunks; by default that of ``checkpoint.save``, or
      less where ``max_memory`` needs it.
    max_memory: the limit of the process in bytes, if there is one.
    probe: see ``checkpoint.plan``.
    beside: the bytes that the process holds beside those of a save.

  Returns:
    The plan, and the size of chunks.

  Raises:
    ValueError: if the merge needs more memory.
  """
  size = tree.CHUNK_BYTES if chunk_bytes is None else chunk_bytes
  while True:
    found = checkpoint.plan(params, path=out, chunk_bytes=size)
    needed = found.process_bytes + beside
    fits = max_memory is None or needed <= max_memory
    if fits or chunk_bytes is not None or size <= _LEAST_CHUNK:
      break
    size //= 2
  if not fits:
    largest = max(found.leaves, key=lambda leaf: leaf.peak_bytes)
    show = checkpoint.format_bytes
    raise ValueError(
      f'--max_memory: the merge needs about {show(needed)} in '
      f"chunks of {show(size)}, {show(largest.peak_bytes)} for '{largest.name}'"
      f' ({largest.how}): give more'
    )
  if probe:
    found = checkpoint.plan(params, path=out, chunk_bytes=size, probe=True)
  return found, size
