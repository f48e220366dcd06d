"""Loading a checkpoint, at once or leaf by leaf on demand."""

from collections.abc import Callable
import dataclasses
import json
import os
import pathlib
from typing import Any, cast, NamedTuple, TypeAlias

import numpy as np

from wsl import tree, types
from wsl.checkpoint import _format, _orbax, _read_leaf, _structure

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
_Free: TypeAlias = list[np.ndarray] | None


class _Files(NamedTuple):
  """The leaves of one or more files by name, and their metadata."""

  leaves: dict[str, tree.Stored]
  metadata: dict[str, str]


def load(
  path: str | os.PathLike[str],
  *,
  lazy: bool = False,
  sharding: types.Tree | Callable[[str], Any] = None,
  like: types.Params = None,
  check_finite: bool = True,
) -> types.Params:
  """Loads parameters from safetensors, or from an Orbax checkpoint.

  A file written by ``save`` returns the saved tree: dicts, lists, tuples and
  ``None`` exactly, other nodes as dicts of their fields. Any other safetensors
  file returns a flat dict under the file's own names. ``like`` sets the
  structure instead. Dtypes are always the file's.

  Args:
    path: a safetensors file; a folder with one, or with shards and an index in
      the format of Hugging Face; or a folder written by Orbax (the newest step
      of a run).
    lazy: whether leaves are on demand (``tree.Stored``): each use of a leaf
      reads it. The model keeps one buffer, as large as its largest leaf so far,
      and reads the next leaf into it.
    sharding: the placement of leaves: a ``jax.sharding.Sharding``, a tree of
      them that is a prefix of the parameters, or a function of a leaf's name.
      ``None`` returns numpy arrays on the host.
    like: a tree with the names and shapes of the file.
    check_finite: with ``lazy``, whether reading a leaf with an infinity or a
      NaN is an error.

  Returns:
    The parameters.

  Raises:
    FileNotFoundError: if ``path`` does not exist, or a shard is missing.
    ValueError: if a file is damaged, or does not fit ``like``.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import checkpoint
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'a.safetensors')
    >>> checkpoint.save(file, {'layer': [np.ones(2), np.zeros(3)]})
    >>> checkpoint.load(file)
    {'layer': [array([1., 1.]), array([0., 0., 0.])]}
    >>> checkpoint.load(file, lazy=True)['layer'][1].shape
    (3,)
  """
  folder = pathlib.Path(path)
  if _orbax.is_orbax(folder):
    return _load_orbax(folder, lazy, sharding, like)
  free: _Free = [] if lazy else None
  files = _open(folder, finite=lazy and check_finite, free=free)
  if like is not None:
    params = _structure.fit(like, files.leaves, folder)
  elif _structure.KEY in files.metadata:
    record = files.metadata[_structure.KEY]
    params = _structure.rebuild(record, files.leaves, folder)
  else:
    params = files.leaves
  if sharding is not None:
    places = _places(params, sharding)
    params = tree.map_named(_place, params, places)
  return params if lazy else tree.read(params)


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
  """Returns the metadata of a safetensors checkpoint.

  Args:
    path: as in ``load``.

  Returns:
    A dict of strings, without the record of the tree's structure.

  Raises:
    FileNotFoundError: if ``path`` does not exist.
    ValueError: if a file is damaged.

  Example:
    >>> import pathlib, tempfile
    >>> from wsl import checkpoint
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'a.safetensors')
    >>> checkpoint.save(file, {}, metadata={'from': 'ties'})
    >>> checkpoint.metadata(file)
    {'from': 'ties'}
  """
  found = _open(pathlib.Path(path), finite=False, free=None).metadata
  return {k: v for k, v in found.items() if k != _structure.KEY}


def _load_orbax(
  path: pathlib.Path, lazy: bool, sharding: Any, like: types.Params
) -> types.Params:
  """Loads the newest step of an Orbax checkpoint."""
  if lazy:
    raise ValueError(
      f'load: {path} was written by Orbax and cannot be read leaf by leaf: '
      'load it without lazy and save it as safetensors'
    )
  params = _orbax.describe(path)
  if like is not None:
    params = _structure.fit(like, tree.named(params), path)
  places = None
  if sharding is not None:
    places = tree.named(_places(params, sharding))
  params = _orbax.load(path, places)
  if like is not None:
    params = _structure.fit(like, tree.named(params), path)
  return params


def _places(params: types.Params, sharding: Any) -> types.Tree:
  """Returns the sharding of every leaf."""
  if callable(sharding):
    return tree.map_named(lambda name, _: sharding(name), params)
  return tree.broadcast_prefix(sharding, params)


def _place(name: str, leaf: tree.Stored, where: Any) -> tree.Stored:
  """Returns a leaf on demand that is read into a sharding."""
  del name
  fetch = dataclasses.replace(cast(Any, leaf.fetch), sharding=where)
  return dataclasses.replace(leaf, fetch=fetch)


def _open(path: pathlib.Path, *, finite: bool, free: _Free) -> _Files:
  """Opens a file, or the file or the shards of a folder."""
  if not path.is_dir():
    return _open_file(path, finite, free)
  if (path / INDEX).is_file():
    return _open_shards(path / INDEX, finite, free)
  if (path / SINGLE).is_file():
    return _open_file(path / SINGLE, finite, free)
  files = sorted(path.glob('*.safetensors'))
  if len(files) != 1:
    names = [file.name for file in files[:4]]
    raise FileNotFoundError(
      f'load: {path} holds neither {INDEX} nor {SINGLE}, and '
      f'{len(files)} other safetensors files {names}: give one file'
    )
  return _open_file(files[0], finite, free)


def _open_file(path: pathlib.Path, finite: bool, free: _Free) -> _Files:
  """Reads the header of a file; its leaves are on demand."""
  header = _format.read_header(path)
  leaves = {
    name: tree.Stored(
      _read_leaf.Fetch(path, name, entry, header.stamp, finite, free),
      entry.shape,
      entry.dtype,
    )
    for name, entry in header.entries.items()
  }
  return _Files(leaves, header.metadata)


def _open_shards(index: pathlib.Path, finite: bool, free: _Free) -> _Files:
  """Reads the headers of all shards that an index names."""
  shard_of, metadata = read_index(index)
  shards = {}
  for shard in dict.fromkeys(shard_of.values()):
    file = index.parent / shard
    if not file.is_file():
      raise FileNotFoundError(
        f'load: shard {shard}, which {index} names, is missing: copy it there'
      )
    shards[shard] = _open_file(file, finite, free).leaves
  leaves = {}
  for name, shard in shard_of.items():
    if name not in shards[shard]:
      raise _format.damaged(
        index, f"shard {shard} has no leaf '{name}', which the index promises"
      )
    leaves[name] = shards[shard][name]
  return _Files(leaves, metadata)


def read_index(path: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
  """Returns the shard of each name, and the strings in the metadata."""
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    shard_of = content['weight_map']
    # A name with a folder in it could point outside the checkpoint.
    sound = all(pathlib.Path(s).name == s for s in shard_of.values())
    metadata = dict(content.get('metadata') or {})
  except (KeyError, TypeError, AttributeError, ValueError):
    sound = False
  if not sound:
    raise _format.damaged(path, 'it does not map names to files beside it')
  return shard_of, {k: v for k, v in metadata.items() if isinstance(v, str)}
