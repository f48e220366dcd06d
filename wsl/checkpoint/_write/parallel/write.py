"""A save by several processes, of leaves that are sharded over them.

Process 0 locks the target and creates the files at their full size. Every
process writes the regions that ``shares`` gives it, and brings them to the
disk. When all have, process 0 puts the files in place, as in a save of one
process: the checkpoint becomes visible at once, or not at all.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import os
import pathlib
import secrets
from typing import Any

import jax
import numpy as np

from wsl import tree
from wsl.checkpoint import _format
from wsl.checkpoint._read import regions
from wsl.checkpoint._write import files as files_lib
from wsl.checkpoint._write import pieces, previous, sink, space
from wsl.checkpoint._write import stage as stage_lib
from wsl.checkpoint._write import target as target_lib
from wsl.checkpoint._write import write as write_lib
from wsl.checkpoint._write.parallel import exchange, hashes, shares
from wsl.checkpoint._write.parallel import writer as writer_lib


def write(
  target: target_lib.Target,
  files: Sequence[files_lib.File],
  notes: Mapping[str, str],
  *,
  sharded: bool,
  check_finite: bool,
  progress: sink.Progress | None,
  chunk_bytes: int,
) -> bool:
  """Writes the files of a checkpoint; every process of the run calls this.

  Args:
    target: the file or folder.
    files: one file, or the shards.
    notes: the metadata of the index.
    sharded: whether they are shards with an index.
    check_finite: whether a value that is not finite is an error.
    progress: called by process 0.
    chunk_bytes: see ``save``.

  Returns:
    False if the processes do not share the folder: nothing is written then.

  Raises:
    RuntimeError: if another process has failed.
  """
  first = jax.process_index() == 0
  stage, token = stage_lib.of(target), ''
  old: list[pathlib.Path] = []
  error: Exception | None = None
  with contextlib.ExitStack() as stack:
    if first:
      try:
        old = _prepare(stack, target, files, sharded)
        token = secrets.token_hex(8)
        (stage.folder / token).touch()
      except Exception as reason:
        error = reason
    exchange.agree(error)
    token = exchange.texts(token)[0]
    if not all(exchange.texts('shared' * (stage.folder / token).exists())):
      return False
    exchange.agree(_compare(stage, files))
    exchange.agree(_write(stage, files, check_finite, progress, chunk_bytes))
    digests = {}
    if any(file.checksums for file in files):
      digests = hashes.compute(stage, files)
    if first:
      error = _commit(stage, files, notes, sharded, old, digests)
    exchange.agree(error)
  return True


def _prepare(
  stack: contextlib.ExitStack,
  target: target_lib.Target,
  files: Sequence[files_lib.File],
  sharded: bool,
) -> list[pathlib.Path]:
  """Locks the target and creates the files; returns those to be removed."""
  with space.explained(target.path):
    target.parent.mkdir(parents=True, exist_ok=True)
  stage = stack.enter_context(stage_lib.enter(target, keep=False))
  old = previous.find(target, sharded=sharded)
  write_lib.check_space(stage, files)
  with space.explained(target.path):
    for i, file in enumerate(files):
      with open(stage.part(i), 'wb') as part:
        part.write(file.header)
        part.truncate(len(file.header) + file.payload)
  return old


def _compare(
  stage: stage_lib.Stage, files: Sequence[files_lib.File]
) -> Exception | None:
  """Returns an error if process 0 saves other leaves than this one."""
  try:
    for i, file in enumerate(files):
      with open(stage.part(i), 'rb') as part:
        if part.read(len(file.header)) != file.header:
          return ValueError(
            'save: its names, shapes, dtypes or metadata are not those of '
            'process 0: save the same tree in every process'
          )
  except OSError as error:
    return error
  return None


def _write(
  stage: stage_lib.Stage,
  files: Sequence[files_lib.File],
  check_finite: bool,
  progress: sink.Progress | None,
  chunk_bytes: int,
) -> Exception | None:
  """Writes the regions of this process; returns the error if it fails.

  An error while leaves are computed together is raised at once: the others may
  wait for this process in a collective operation.
  """
  first = jax.process_index() == 0
  places = {name: (i, at) for i, name, at in _places(files)}
  leaves = {name: x for file in files for name, x in file.leaves.items()}
  together = {
    name: x
    for name, x in leaves.items()
    if not isinstance(x, np.ndarray) and tree.spans_processes(x)
  }
  alone = {name: x for name, x in leaves.items() if name not in together}
  total = sum(file.payload for file in files)
  rest = sum(_format.nbytes(x.dtype, x.shape) for x in alone.values())
  loads, done = [0] * jax.process_count(), 0
  loads[0] = rest
  writer = writer_lib.Writer(stage, check_finite=check_finite)
  try:
    for name, leaf in together.items():
      value = tree.read(leaf)
      pieces.check(name, leaf, value)
      writer.put(*places[name], name, shares.own(value, loads))
      done += value.nbytes
      del value
      if progress is not None and first:
        progress(name, done, total)
    if first:
      _write_alone(writer, places, alone, chunk_bytes, progress, done, total)
  finally:
    writer.close()
  return writer.failure


def _write_alone(
  writer: writer_lib.Writer,
  places: Mapping[str, tuple[int, int]],
  leaves: Mapping[str, Any],
  chunk_bytes: int,
  progress: sink.Progress | None,
  done: int,
  total: int,
) -> None:
  """Writes the leaves that every process has as a whole."""
  ends: dict[str, int] = {}
  try:
    for piece in pieces.of(leaves, chunk_bytes):
      i, start = places[piece.name]
      at = ends.get(piece.name, 0)
      runs = regions.Runs(np.zeros(1, np.int64), piece.values.size)
      part = shares.Part(runs, piece.values)
      writer.put(i, start + at, piece.name, [part])
      ends[piece.name] = at + piece.values.nbytes
      done += piece.values.nbytes
      if progress is not None and piece.last:
        progress(piece.name, done, total)
      if writer.failure is not None:
        return
  except Exception as error:
    writer.fail(error)


def _places(
  files: Sequence[files_lib.File],
) -> Iterator[tuple[int, str, int]]:
  """Yields the file, the name and the offset of each leaf."""
  for i, file in enumerate(files):
    at = len(file.header)
    for name, leaf in file.leaves.items():
      yield i, name, at
      at += _format.nbytes(leaf.dtype, leaf.shape)


def _commit(
  stage: stage_lib.Stage,
  files: Sequence[files_lib.File],
  notes: Mapping[str, str],
  sharded: bool,
  old: Sequence[pathlib.Path],
  digests: Mapping[str, str],
) -> Exception | None:
  """Puts the files in place; returns the error if that fails."""
  try:
    for i, file in enumerate(files):
      with (
        space.explained(stage.target.path),
        open(stage.part(i), 'rb+') as part,
      ):
        if digests:
          os.pwrite(part.fileno(), file.header_with(digests), 0)
        sink.seal(part.fileno())
    write_lib.commit(stage, files, notes, sharded=sharded, old=old)
  except Exception as error:
    return error
  return None
