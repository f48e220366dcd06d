"""Saving parameters as safetensors, one leaf after the other.

Leaves on demand have known shapes and dtypes, so the header is written first;
then each leaf is computed, written and released.
"""

import os
from typing import Any

import jax
import numpy as np

from wsl import tree, types
from wsl.checkpoint import _digests, _metadata, _structure
from wsl.checkpoint._read import pause
from wsl.checkpoint._write import files as files_lib
from wsl.checkpoint._write import pieces, sink, write
from wsl.checkpoint._write import target as target_lib
from wsl.checkpoint._write.parallel import exchange
from wsl.checkpoint._write.parallel import write as parallel


def save(
  path: str | os.PathLike[str],
  params: types.Params,
  *,
  metadata: dict[str, str] | None = None,
  like: types.Params | str | os.PathLike[str] = None,
  shard_bytes: int | None = None,
  progress: sink.Progress | None = None,
  dtype: Any = None,
  check_finite: bool = True,
  checksums: bool = False,
  resume: bool = False,
  chunk_bytes: int = tree.CHUNK_BYTES,
) -> None:
  """Saves parameters as safetensors: at once, or not at all.

  A leaf on demand that is entrywise over its inputs is computed in chunks of
  fixed size: the next inputs are read and the previous chunk is written while
  one is computed, and memory does not depend on the size of leaves. Others,
  such as singular values, need the memory of about one leaf and its inputs; see
  ``tree.stream`` and ``plan``. Programs are compiled once for all leaves, and
  once for all processes if ``jax_compilation_cache_dir`` is set (and
  ``jax_persistent_cache_min_compile_time_secs`` is 0).

  Files are written into a hidden folder beside ``path`` and renamed when all
  are on the disk. Until then the old checkpoint stays as it is; a reader finds
  the old or the new one, also after a crash, and the next save removes what a
  killed one left.

  In a run of several processes all of them call this, with the same tree. Each
  process writes a part of the leaves that are sharded over processes, straight
  from its devices into the files, and process 0 writes the others. The new
  checkpoint appears when all have written; if one fails, it does not, and all
  raise. Processes that do not share the folder send these leaves to process 0.

  Args:
    path: ``NAME.safetensors``; or a folder, for ``model.safetensors``, or for
      shards and an index in the format of Hugging Face. A checkpoint in the
      folder is replaced; other files are not, nor is a checkpoint of several
      files that another program has written. The names of shards hold a random
      number if the folder has shards.
    params: any pytree of arrays, on demand or not.
    metadata: strings to store in the file; see ``checkpoint.metadata``. They
      are added to the metadata that is kept (see ``like``), and win over it.
    like: a path as in ``load``, or leaves on demand, whose metadata is kept
      (``format: pt``, for example). ``None`` keeps the metadata of the files
      that leaves on demand are computed from, except a key with different
      values in several files. Arrays in memory have no metadata.
    shard_bytes: the largest payload of a shard, in bytes; a larger leaf has a
      shard of its own. ``None`` writes one file.
    progress: called by the thread that writes, of process 0, with a leaf's
      name, the bytes written so far and the total.
    dtype: the dtype of float leaves in the file; their own by default. Each
      leaf is cast when it is written.
    check_finite: whether an infinity or a NaN is an error, in a leaf that is
      computed as well as in one that is copied. Chunks are checked just before
      they are written.
    checksums: whether the metadata records the SHA-256 of each leaf's bytes
      (``wsl.sha256``), which ``load`` verifies before a leaf is first used.
    resume: whether a save that is killed or fails keeps its finished leaves,
      and this one continues such a save: of the same names, shapes, dtypes,
      metadata, shards and input files, and of the same computation. The latter
      is checked by computing one of the finished leaves again.
    chunk_bytes: the size of each operand of a chunk, a power of two, which
      bounds the memory of the computation to about ten times as much for each
      model.

  Raises:
    BlockingIOError: if another process or thread is saving to ``path``, naming
      its owner.
    OSError: if there is no room for the files, before the first one is written;
      or if they cannot be written.
    RuntimeError: if another process of the run fails, with its reason.
    ValueError: if a value is not finite or the format does not have a leaf's
      dtype, naming the leaf; if a leaf on demand returns another shape or dtype
      than it declared; if ``path`` is a link, or holds files of a checkpoint
      that wsl has not written; or if an argument is out of range.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import checkpoint
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'a.safetensors')
    >>> checkpoint.save(file, {'w': np.ones(2, np.float32)})
    >>> checkpoint.load(file)
    {'w': array([1., 1.], dtype=float32)}
  """
  target = target_lib.find(path)
  _check(target, metadata, shard_bytes, chunk_bytes)
  with pause.collection():
    leaves = {
      name: leaf if hasattr(leaf, 'dtype') else np.asarray(leaf)
      for name, leaf in tree.named(params).items()
    }
    notes = _notes(params, leaves, metadata, like)
    if hyper := tree.output_dtype('save', leaves, dtype):
      leaves = {name: _cast(leaf, hyper) for name, leaf in leaves.items()}
    files = files_lib.group(
      leaves, notes, shard_bytes=shard_bytes, checksums=checksums
    )
  shared = tree.spans_processes(*leaves.values())
  if shared and resume:
    raise ValueError(
      'save(resume=True): the leaves are sharded over processes, which compute '
      'them together: leave resume= out'
    )
  settings: dict[str, Any] = {
    'sharded': shard_bytes is not None,
    'check_finite': check_finite,
    'progress': progress,
    'chunk_bytes': chunk_bytes,
  }
  if shared and parallel.write(target, files, notes, **settings):
    return
  error = None
  if jax.process_index() == 0:
    try:
      write.write(target, files, notes, resume=resume, **settings)
    except Exception as reason:
      # Where leaves are gathered the others wait in a collective operation.
      if shared or jax.process_count() == 1:
        raise
      error = reason
  elif shared:
    for leaf in (x for file in files for x in file.leaves.values()):
      if tree.spans_processes(leaf):
        pieces.host(leaf)
  if jax.process_count() > 1:
    exchange.agree(error)


def file_bytes(
  params: types.Params, *, metadata: dict[str, str] | None = None
) -> int:
  """Returns the size of the file that ``save`` writes, without computing it.

  Args:
    params: as in ``save``.
    metadata: as in ``save``.

  Returns:
    The bytes of the header and of all leaves.

  Raises:
    ValueError: as ``save``, for a dtype or a name.

  Example:
    >>> import numpy as np
    >>> from wsl import checkpoint
    >>> checkpoint.file_bytes({'w': np.ones(2, np.float32)})
    136
  """
  leaves = tree.named(params)
  notes = _notes(params, leaves, metadata, None)
  (file,) = files_lib.group(leaves, notes, shard_bytes=None, checksums=False)
  return len(file.header) + file.payload


def _notes(
  params: types.Params,
  leaves: dict[str, Any],
  metadata: dict[str, str] | None,
  like: Any,
) -> dict[str, str]:
  """Returns the metadata of a file: inherited, given, and the structure."""
  notes = _metadata.inherited(like, params) | (metadata or {})
  notes[_structure.KEY] = _structure.record(params, leaves)
  return notes


def _cast(leaf: Any, hyper: dict[str, Any]) -> Any:
  """Casts a float leaf when it is read."""
  if not tree.is_float(leaf):
    return leaf
  return tree.Computed(tree.cast_leaf, (leaf,), hyper)


def _check(
  target: target_lib.Target,
  metadata: dict[str, str] | None,
  shard_bytes: int | None,
  chunk_bytes: int,
) -> None:
  """Checks the arguments of ``save``."""
  for key, value in (metadata or {}).items():
    if not isinstance(value, str) or not isinstance(key, str):
      raise ValueError(f'save: metadata[{key!r}] must be a string: {value!r}')
    if key in (_structure.KEY, _digests.KEY):
      raise ValueError(f"save: metadata key '{key}' is taken: choose another")
  if shard_bytes is not None and shard_bytes <= 0:
    raise ValueError(f'save(shard_bytes={shard_bytes}): give a positive size')
  if chunk_bytes <= 0:
    raise ValueError(f'save(chunk_bytes={chunk_bytes}): give a positive size')
  if shard_bytes is not None and not target.folder:
    raise ValueError(
      f'save: shards need a folder, {target.path} names a file: drop the suffix'
    )
  target_lib.check(target)
