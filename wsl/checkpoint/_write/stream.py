"""Writes leaves while the next ones are read and computed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import functools
from typing import Any

from wsl.checkpoint._write import files as files_lib
from wsl.checkpoint._write import pieces as pieces_lib
from wsl.checkpoint._write import sink as sink_lib
from wsl.checkpoint._write import stage as stage_lib

# Pieces are written together up to this size and number.
_BATCH_BYTES = 1 << 20
_BATCH = 1024


def write(
  stage: stage_lib.Stage,
  files: Sequence[files_lib.File],
  sink: sink_lib.Sink,
  chunk_bytes: int,
) -> None:
  """Writes the files into the stage, except the leaves that ``sink`` has."""
  with concurrent.futures.ThreadPoolExecutor(1) as thread:
    written = thread.submit(lambda: None)
    try:
      for task in _tasks(stage, files, sink, chunk_bytes):
        written.result()
        written = thread.submit(task)
        del task
      written.result()
    finally:
      thread.submit(sink.abandon)


def _tasks(
  stage: stage_lib.Stage,
  files: Sequence[files_lib.File],
  sink: sink_lib.Sink,
  chunk_bytes: int,
) -> Iterator[Callable[[], None]]:
  """Yields what the writing thread has to do, in order.

  Leaves are computed here, in the calling thread.
  """
  for i, file in enumerate(files):
    header = file.header
    start = len(header) + file.payload_of(sink.digests)
    rest = {n: x for n, x in file.leaves.items() if n not in sink.digests}
    yield functools.partial(sink.open, stage.part(i), start, header)
    for batch in _batches(rest, chunk_bytes):
      yield functools.partial(sink.write, batch)
      del batch
    yield functools.partial(_close, sink, file)


def _close(sink: sink_lib.Sink, file: files_lib.File) -> None:
  """Completes a file; its hashes are known by now."""
  sink.close(file.header_with(sink.digests) if file.checksums else None)


def _batches(
  leaves: Mapping[str, Any], chunk_bytes: int
) -> Iterator[list[pieces_lib.Piece]]:
  """Yields one large piece, or whole small leaves of one dtype."""
  batch: list[pieces_lib.Piece] = []
  room, whole = _BATCH_BYTES, True
  for piece in pieces_lib.of(leaves, chunk_bytes):
    # The last piece of a leaf is not a leaf, however small it is.
    large = piece.values.nbytes >= _BATCH_BYTES or not (piece.last and whole)
    whole = piece.last
    if batch and (large or piece.values.dtype != batch[0].values.dtype):
      yield batch
      batch, room = [], _BATCH_BYTES
    batch.append(piece)
    room -= piece.values.nbytes
    del piece  # It is released as soon as it is written.
    if large or room <= 0 or len(batch) == _BATCH:
      yield batch
      batch, room = [], _BATCH_BYTES
  if batch:
    yield batch
