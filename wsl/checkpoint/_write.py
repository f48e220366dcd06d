"""Writing the files of a checkpoint: all of them, or none.

Files have temporary names until all are complete. A leaf is written while the
next one is read and computed.
"""

from collections.abc import Callable
import concurrent.futures
import contextlib
import json
import os
import pathlib
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import jax
import numpy as np

from wsl import tree
from wsl.checkpoint import _format
from wsl.checkpoint._read import folder_files

Progress: TypeAlias = Callable[[str, int, int], None]
Report: TypeAlias = Callable[[str, int], None]
# A chunk is checked and written while it is in the CPU's cache.
_CHUNK = 1 << 20


class File(NamedTuple):
  """A file to write: its path, encoded header, and leaves in file order."""

  path: pathlib.Path
  header: bytes
  leaves: dict[str, Any]


class Writer(NamedTuple):
  """Writes leaves chunk by chunk, each after a check of its values."""

  report: Report
  check_finite: bool

  def write(self, out: BinaryIO, name: str, value: np.ndarray) -> None:
    """Writes one leaf.

    Raises:
      ValueError: if a value is not finite, naming the leaf.
    """
    flat = value.reshape(-1)
    step = max(_CHUNK // value.itemsize, 1)
    for start in range(0, flat.size, step):
      chunk = flat[start : start + step]
      if self.check_finite and not tree.all_finite(chunk):
        raise ValueError(
          f"save: leaf '{name}' of {value.dtype} has values that are NaN or "
          'infinite: was the result beyond its dtype? give dtype=, or '
          'check_finite=False'
        )
      _write_all(out, chunk.view(np.uint8))
    self.report(name, value.nbytes)


def write(
  target: pathlib.Path,
  files: list[File],
  notes: dict[str, str],
  writer: Writer,
  *,
  sharded: bool,
) -> None:
  """Writes all files under temporary names, then renames them."""
  files[0].path.parent.mkdir(parents=True, exist_ok=True)
  parts = {_part(file.path): file.path for file in files}
  index = target / folder_files.INDEX
  try:
    for file in files:
      with open(_part(file.path), 'wb', buffering=0) as out:
        _write_all(out, np.frombuffer(file.header, np.uint8))
        _write_leaves(out, file.leaves, writer)
    if sharded:
      parts[_part(index)] = index
      _part(index).write_text(_index(files, notes), encoding='utf-8')
    old = _previous(target)
    for part, final in parts.items():
      os.replace(part, final)
    for path in old - set(parts.values()):
      path.unlink(missing_ok=True)
  finally:
    for part in parts:
      part.unlink(missing_ok=True)


def _write_leaves(
  out: BinaryIO, leaves: dict[str, Any], writer: Writer
) -> None:
  """Writes each leaf while the next one is read and computed."""
  with concurrent.futures.ThreadPoolExecutor(1) as thread:
    written = thread.submit(lambda: None)
    for name, leaf in leaves.items():
      value = host(leaf)
      if value.shape != leaf.shape or value.dtype != leaf.dtype:
        raise ValueError(
          f"save: leaf '{name}' promised {leaf.dtype}{list(leaf.shape)} and is "
          f'{value.dtype}{list(value.shape)}'
        )
      written.result()
      written = thread.submit(writer.write, out, name, value)
      del value
    written.result()


def host(leaf: Any) -> np.ndarray:
  """Reads a leaf; all processes take part if it spans them."""
  value = tree.read(leaf)
  if isinstance(value, jax.Array) and not value.is_fully_addressable:
    from jax.experimental import multihost_utils

    value = multihost_utils.process_allgather(value, tiled=True)
  return np.asarray(value, order='C')


def reporter(progress: Progress | None, files: list[File]) -> Report:
  """Returns a function that adds up written bytes and calls ``progress``."""
  leaves = [leaf for file in files for leaf in file.leaves.values()]
  total = sum(_format.nbytes(leaf.dtype, leaf.shape) for leaf in leaves)
  done = 0

  def report(name: str, nbytes: int) -> None:
    nonlocal done
    done += nbytes
    if progress is not None:
      progress(name, done, total)

  return report


def _index(files: list[File], notes: dict[str, str]) -> str:
  """Returns the index of shards as JSON."""
  leaves = [leaf for file in files for leaf in file.leaves.values()]
  size = sum(_format.nbytes(leaf.dtype, leaf.shape) for leaf in leaves)
  shard_of = {name: file.path.name for file in files for name in file.leaves}
  return json.dumps(
    {'metadata': {**notes, 'total_size': size}, 'weight_map': shard_of},
    indent=2,
    ensure_ascii=False,
  )


def _previous(target: pathlib.Path) -> set[pathlib.Path]:
  """Returns the files of the checkpoint in a folder."""
  if target.suffix == '.safetensors':
    return set()
  index = target / folder_files.INDEX
  files = {index, target / folder_files.SINGLE}
  if index.is_file():
    with contextlib.suppress(ValueError):
      shard_of, _ = folder_files.read_index(index)
      files |= {target / shard for shard in shard_of.values()}
  return files


def _part(path: pathlib.Path) -> pathlib.Path:
  """Returns the temporary name of a file."""
  return path.with_name(f'.{path.name}.{os.getpid()}.part')


def _write_all(out: BinaryIO, data: np.ndarray) -> None:
  """Writes all bytes; an unbuffered write may take fewer than given."""
  view = data.data
  while view:
    view = view[out.write(view) :]
