"""What would stop a save, found without a read of a tensor."""

from collections.abc import Iterable, Iterator
import pathlib
from typing import Any

from wsl.checkpoint import _format
from wsl.checkpoint._plan import rows
from wsl.checkpoint._read import file_bytes, stored
from wsl.checkpoint._write import previous, space
from wsl.checkpoint._write import target as target_lib


def find(
  plan: rows.Plan,
  inputs: Iterable[Any],
  path: pathlib.Path | None,
  *,
  sharded: bool,
) -> tuple[str, ...]:
  """Returns the mistakes of a save, a line each.

  Args:
    plan: the plan so far.
    inputs: the stored leaves that the save reads.
    path: the target; None if it is not known.
    sharded: whether the save writes shards.
  """
  found = [*_dtypes(plan), *_files(inputs)]
  if path is not None:
    found += _target(path, plan, sharded)
  return tuple(found)


def files(inputs: Iterable[Any]) -> list[file_bytes.FileBytes]:
  """Returns the files that stored leaves are read from."""
  found = {}
  for leaf in inputs:
    fetch = getattr(leaf, 'fetch', None)
    if isinstance(fetch, stored.Fetch) and fetch.file is not None:
      found[id(fetch.file)] = fetch.file
  return list(found.values())


def _dtypes(plan: rows.Plan) -> Iterator[str]:
  """Yields leaves whose dtype the format does not have."""
  for leaf in plan.leaves:
    try:
      _format.code(leaf.name, leaf.dtype)
    except ValueError as error:
      yield str(error)


def _files(inputs: Iterable[Any]) -> Iterator[str]:
  """Yields files that are missing, or have changed."""
  for file in files(inputs):
    try:
      stamp = file_bytes.stamp_of(file.path.stat())
    except OSError as error:
      yield f'{file.path} cannot be read any more: {error.strerror}'
      continue
    if stamp != file.stamp:
      yield f'{file.path} has changed since it was opened: load it again'


def _target(path: pathlib.Path, plan: rows.Plan, sharded: bool) -> list[str]:
  """Returns what is wrong with the target."""
  target = target_lib.find(path)
  folder = target.parent
  while not folder.exists():
    folder = folder.parent
  found = []
  for check in (
    lambda: target_lib.check(target),
    lambda: previous.find(target, sharded=sharded),
    lambda: space.check(folder, path, plan.bytes_out),
  ):
    try:
      check()
    except (OSError, ValueError) as error:
      text = error.strerror if isinstance(error, OSError) else None
      found.append(text or str(error))
  return found
