"""Saving parameters as safetensors, one leaf after the other.

Leaves on demand have known shapes and dtypes, so the header is written first;
then each leaf is computed, written and released.
"""

import os
import pathlib
from typing import Any

import jax
import numpy as np

from wsl import tree, types
from wsl.checkpoint import _format, _metadata, _structure, _write
from wsl.checkpoint._read import folder_files


def save(
  path: str | os.PathLike[str],
  params: types.Params,
  *,
  metadata: dict[str, str] | None = None,
  like: types.Params | str | os.PathLike[str] = None,
  shard_bytes: int | None = None,
  progress: _write.Progress | None = None,
  dtype: Any = None,
  check_finite: bool = True,
) -> None:
  """Saves parameters as safetensors.

  Leaves on demand are computed one by one, each while the previous one is
  written, so a merge needs the memory of about one leaf and its inputs (see
  ``plan``). Files are renamed to their final names when all are written: an
  existing checkpoint stays until then, and an interrupted save changes nothing.

  In a multi-process run every process calls this, and process 0 writes.

  Args:
    path: ``NAME.safetensors``; or a folder, for ``model.safetensors``, or for
      shards and an index in the format of Hugging Face. A checkpoint in the
      folder is replaced.
    params: any pytree of arrays, on demand or not.
    metadata: strings to store in the file; see ``checkpoint.metadata``. They
      are added to the metadata that is kept (see ``like``), and win over it.
    like: a path as in ``load``, or leaves on demand, whose metadata is kept
      (``format: pt``, for example). ``None`` keeps the metadata of the files
      that leaves on demand are computed from, except a key with different
      values in several files. Arrays in memory have no metadata.
    shard_bytes: the largest payload of a shard, in bytes; a larger leaf has a
      shard of its own. ``None`` writes one file.
    progress: called by the writing thread with a leaf's name, the bytes written
      so far and the total.
    dtype: the dtype of float leaves in the file; their own by default. Each
      leaf is cast when it is written.
    check_finite: whether an infinity or a NaN is an error, in a leaf that is
      computed as well as in one that is copied. Chunks are checked just before
      they are written.

  Raises:
    ValueError: if a value is not finite or the format does not have a leaf's
      dtype, naming the leaf; if a leaf on demand returns another shape or dtype
      than it declared; or if an argument is out of range.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import checkpoint
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'a.safetensors')
    >>> checkpoint.save(file, {'w': np.ones(2, np.float32)})
    >>> checkpoint.load(file)
    {'w': array([1., 1.], dtype=float32)}
  """
  target = pathlib.Path(path)
  leaves = {
    name: leaf if hasattr(leaf, 'dtype') else np.asarray(leaf)
    for name, leaf in tree.named(params).items()
  }
  _check(target, metadata, shard_bytes)
  if hyper := tree.output_dtype('save', leaves, dtype):
    cast = lambda x: tree.Computed(tree.cast_leaf, (x,), hyper)
    leaves = {n: cast(x) if tree.is_float(x) else x for n, x in leaves.items()}
  notes = _metadata.inherited(like, params) | (metadata or {})
  notes[_structure.KEY] = _structure.record(params)
  files = _layout(target, leaves, notes, shard_bytes)
  shared = any(tree.spans_processes(leaf) for leaf in leaves.values())
  if jax.process_index() == 0:
    sharded = shard_bytes is not None
    writer = _write.Writer(_write.reporter(progress, files), check_finite)
    _write.write(target, files, notes, writer, sharded=sharded)
  elif shared:
    for file in files:
      for leaf in file.leaves.values():
        _write.host(leaf)
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(f'wsl.checkpoint.save {target}')


def _check(
  target: pathlib.Path,
  metadata: dict[str, str] | None,
  shard_bytes: int | None,
) -> None:
  """Checks the arguments of ``save``."""
  for key, value in (metadata or {}).items():
    if not isinstance(value, str) or not isinstance(key, str):
      raise ValueError(f'save: metadata[{key!r}] must be a string: {value!r}')
    if key == _structure.KEY:
      raise ValueError(f"save: metadata key '{key}' is taken: choose another")
  if shard_bytes is not None and shard_bytes <= 0:
    raise ValueError(f'save(shard_bytes={shard_bytes}): give a positive size')
  if shard_bytes is not None and target.suffix == '.safetensors':
    raise ValueError(
      f'save: shards need a folder, {target} names a file: drop the suffix'
    )


def _layout(
  target: pathlib.Path,
  leaves: dict[str, Any],
  notes: dict[str, str],
  shard_bytes: int | None,
) -> list[_write.File]:
  """Assigns the leaves to files, in order, by the payload of a shard."""
  groups: list[dict[str, Any]] = [{}]
  room = shard_bytes
  for name, leaf in leaves.items():
    _format.code(name, leaf.dtype)
    size = _format.nbytes(leaf.dtype, leaf.shape)
    if room is not None and size > room and groups[-1]:
      groups.append({})
      room = shard_bytes
    groups[-1][name] = leaf
    room = room if room is None else room - size
  if shard_bytes is None:
    one = target.suffix == '.safetensors'
    paths = [target if one else target / folder_files.SINGLE]
  else:
    n = len(groups)
    paths = [
      target / f'model-{i:05d}-of-{n:05d}.safetensors' for i in range(1, n + 1)
    ]
  return [_file(p, group, notes) for p, group in zip(paths, groups)]


def _file(
  path: pathlib.Path, leaves: dict[str, Any], notes: dict[str, str]
) -> _write.File:
  """Encodes the header of one file."""
  # Widest dtype first: each tensor then starts at a multiple of its item size,
  # since the payload starts at a multiple of 64 bytes.
  order = sorted(leaves, key=lambda name: -leaves[name].dtype.itemsize)
  specs = {name: (leaves[name].dtype, leaves[name].shape) for name in order}
  header = _format.encode(specs, notes)
  return _write.File(path, header, {name: leaves[name] for name in order})
