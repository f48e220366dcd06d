"""A save: its files are written into the stage, then put in place."""

from collections.abc import Mapping, Sequence
import pathlib

from wsl.checkpoint._write import files as files_lib
from wsl.checkpoint._write import previous, space, stream, swap
from wsl.checkpoint._write import resume as resume_lib
from wsl.checkpoint._write import sink as sink_lib
from wsl.checkpoint._write import stage as stage_lib
from wsl.checkpoint._write import target as target_lib


def write(
  target: target_lib.Target,
  files: Sequence[files_lib.File],
  notes: Mapping[str, str],
  *,
  sharded: bool,
  resume: bool,
  check_finite: bool,
  progress: sink_lib.Progress | None,
  chunk_bytes: int,
) -> None:
  """Writes the files of a checkpoint: all of them, or none.

  Args:
    target: the file or folder.
    files: one file, or the shards.
    notes: the metadata of the index.
    sharded: whether they are shards with an index.
    resume: whether to continue a killed save, and to allow it for this one.
    check_finite: whether a value that is not finite is an error.
    progress: see ``save``.
    chunk_bytes: see ``save``.
  """
  with space.explained(target.path):
    target.parent.mkdir(parents=True, exist_ok=True)
  with stage_lib.enter(target, keep=resume) as stage:
    old = previous.find(target, sharded=sharded)
    done = resume_lib.finished(stage, files) if resume else {}
    check_space(stage, files)
    sink = sink_lib.Sink(
      target.path,
      check_finite,
      hashed=resume or any(file.checksums for file in files),
      journal=stage.journal if resume else None,
      progress=progress,
      total=sum(file.payload for file in files),
      done=sum(file.payload_of(done) for file in files),
      digests=done,
    )
    stream.write(stage, files, sink, chunk_bytes)
    commit(stage, files, notes, sharded=sharded, old=old)


def commit(
  stage: stage_lib.Stage,
  files: Sequence[files_lib.File],
  notes: Mapping[str, str],
  *,
  sharded: bool,
  old: Sequence[pathlib.Path],
) -> None:
  """Writes the index of complete files, and puts them in place."""
  names = None
  if sharded:
    names = swap.shard_names(stage.target, len(files))
    _write_index(stage, files_lib.index(files, names, notes))
  swap.swap(stage, names, old)


def check_space(
  stage: stage_lib.Stage, files: Sequence[files_lib.File]
) -> None:
  """Checks that the files fit on the disk, before they are written."""
  needed = sum(file.payload + len(file.header) for file in files)
  with space.explained(stage.target.path):
    kept = [path.stat().st_size for path in stage.folder.iterdir()]
  space.check(stage.folder, stage.target.path, needed - sum(kept))


def _write_index(stage: stage_lib.Stage, text: str) -> None:
  """Writes the index into the stage."""
  with (
    space.explained(stage.target.path),
    open(stage.index, 'w', encoding='utf-8') as file,
  ):
    file.write(text)
    file.flush()
    sink_lib.seal(file.fileno())
