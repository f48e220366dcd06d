"""Loading a checkpoint, at once or leaf by leaf on demand."""

from collections.abc import Callable
import os
import pathlib
from typing import Any, NamedTuple

import jax

from wsl import tree, types
from wsl.checkpoint import _shard_digests, _structure
from wsl.checkpoint._read import door, neighbours, pause, settle, stored
from wsl.checkpoint._read.orbax import layout, restore
from wsl.checkpoint._read.orbax import lazy as lazy_orbax


def load(
  path: str | os.PathLike[str],
  *,
  lazy: bool = False,
  sharding: types.Tree | Callable[[str], Any] = None,
  like: types.Params = None,
  step: int | None = None,
  item: str | None = None,
  variant: str | None = None,
  check_finite: bool = True,
) -> types.Params:
  """Loads parameters from a checkpoint of any common format.

  It reads safetensors, Orbax, PyTorch's files (``.bin``, ``.pt``, ``.pth``),
  NPZ, msgpack of Flax, and GGUF without quantisation; the first bytes of a file
  tell its format. No file runs code: the pickle of a PyTorch file may build
  tensors, containers, numbers and strings, and is refused if it names anything
  else; with ``item``, if the chosen part does.

  A file written by ``save`` returns the saved tree: lists, tuples, ``None`` and
  dicts whose keys are strings, numbers or tuples of them exactly; any other
  key as a string, and any other node as a dict of its fields. Another
  safetensors file, NPZ and GGUF return a flat dict under the file's own names,
  the numbers in them in order. PyTorch and Flax return the tree of the file, in
  which numbers are arrays without axes, and strings stay (a data set of the
  public model zoos is a dict of its attributes, see ``split_vectors``). Orbax
  returns what it has recorded: keys of dicts are strings, and tuples are lists.
  ``like`` sets the structure instead, exactly. Dtypes are always the file's.

  Args:
    path: a file; a folder with one, or with shards and an index in the format
      of Hugging Face, or with all shards ``*-00001-of-00003`` and no index; an
      index; or a run, a step or an item of Orbax or of Flax with Orbax. One
      shard alone returns the leaves that it holds. Of a folder with files of
      several formats, safetensors are read.
    lazy: whether leaves are on demand (``tree.Stored``): each use of a leaf
      reads it. The model keeps one buffer, as large as its largest leaf so far,
      and reads the next leaf into it. Orbax is read in the chunks in which it
      was saved: an array saved as one chunk is read as a whole, one saved
      sharded slab by slab.
    sharding: the placement of leaves: a ``jax.sharding.Sharding``, a tree of
      them that is a prefix of the parameters, or a function of a leaf's name.
      Each process reads the parts of the file that its devices hold, and gaps
      of less than 32 KiB between them. ``None`` returns numpy arrays on the
      host.
      Leaves of 64 bits stay on the host in any case where ``jax_enable_x64`` is
      off: JAX would narrow them.
    like: a tree with the names and shapes of the file, whose names may also be
      dotted (``a.0.w`` for ``a/0/w``, see ``tree.like``).
    step: the step of a run of Orbax or Flax; ``None`` takes the newest.
    item: the part to load: a tree of an Orbax step, such as ``'params'``
      (``None`` takes the only one, or ``'default'``); a sub-folder, such as
      ``'unet'``; or a key in a file of PyTorch or Flax, ``'state_dict'`` or
      ``'model/ema'``.
    variant: the variant of a folder's files, ``'fp16'`` for
      ``model.fp16.safetensors``; ``None`` takes the files without one, or the
      only variant.
    check_finite: whether reading a leaf with an infinity or a NaN is an error;
      ``False`` loads masks of ``-inf``, for example.

  Returns:
    The parameters.

  Raises:
    FileNotFoundError: if ``path`` does not exist, a shard is missing, or there
      is no such step, item or variant; the message lists those there are.
    ValueError: if a file is damaged, of another format, or quantised; if a
      pickle asks for more than tensors and containers; if the folder is a LoRA
      (see ``load_lora``); if a leaf is in two shards or omitted by the index;
      if ``like`` does not fit; if a step of Orbax has several items; or if a
      value is not finite, naming the leaf.

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
  if layout.is_orbax(folder):
    where = layout.find_item('load', folder, step, item)
    params = _load_orbax(where, lazy, sharding, like, check_finite)
    if check_finite:
      remedy = 'leave this model out, or load with check_finite=False'
      tree.check_finite(f'load: {folder}', params, remedy=remedy)
    return params
  options = _Options(item, variant, step, lazy, sharding, like, check_finite)
  with pause.collection():
    return settle.settled(folder, lambda: _load_files(folder, options))


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
  """Returns the metadata of a safetensors checkpoint.

  Args:
    path: as in ``load``.

  Returns:
    A dict of strings, without the record of the tree's structure.

  Raises:
    FileNotFoundError: if ``path`` does not exist.
    ValueError: if a file is damaged, or was written by Orbax.

  Example:
    >>> import pathlib, tempfile
    >>> from wsl import checkpoint
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'a.safetensors')
    >>> checkpoint.save(file, {}, metadata={'from': 'ties'})
    >>> checkpoint.metadata(file)
    {'from': 'ties'}
  """
  if layout.is_orbax(pathlib.Path(path)):
    raise ValueError(
      f'metadata: {path} was written by Orbax: its metadata is not read here'
    )
  read = lambda: door.open_path(pathlib.Path(path))
  found = settle.settled(pathlib.Path(path), read).metadata
  return {k: v for k, v in found.items() if k != _structure.KEY}


class _Options(NamedTuple):
  """The arguments of ``load`` for files of any format but Orbax."""

  item: str | None
  variant: str | None
  step: int | None
  lazy: bool
  sharding: Any
  like: types.Params
  check_finite: bool


def _load_files(path: pathlib.Path, options: _Options) -> types.Params:
  """Loads a checkpoint of any format but Orbax."""
  params, metadata = door.open_path(
    path,
    item=options.item,
    variant=options.variant,
    step=options.step,
    finite=options.check_finite,
    free=[] if options.lazy else None,
  )
  structured = True
  if options.like is not None:
    params = _structure.fit(options.like, tree.named(params), path)
  elif _structure.KEY in metadata:
    params = _structure.rebuild(metadata[_structure.KEY], params, path)
  else:
    structured = not door.is_flat(params)
  if options.sharding is not None:
    places = _places(params, options.sharding)
    params = jax.tree.map(_place, params, places)
  params = params if options.lazy else neighbours.read(params)
  if structured:
    return params
  # A flat dict; mapping over it has sorted its names as strings.
  return {name: params[name] for name in tree.in_order(params)}


def _place(leaf: Any, where: Any) -> Any:
  """Returns a leaf that is read into a sharding; strings stay."""
  return stored.place(leaf, where) if isinstance(leaf, tree.Stored) else leaf


def _load_orbax(
  path: pathlib.Path,
  lazy: bool,
  sharding: Any,
  like: types.Params,
  check_finite: bool,
) -> types.Params:
  """Loads one item of Orbax."""
  hashes = {} if lazy else _shard_digests.read('load', path)
  # Of a step with hashes, a process verifies the shards that it reads.
  if lazy or (hashes and sharding is not None):
    options = stored.Options(path, check_finite, [], {})
    params = lazy_orbax.load(path, options)
    if like is not None:
      params = _structure.fit(like, tree.named(params), path)
    if sharding is not None:
      params = jax.tree.map(_place, params, _places(params, sharding))
    return params if lazy else tree.read(params)
  params = restore.describe('load', path)
  if like is not None:
    params = _structure.fit(like, tree.named(params), path)
  places = None
  if sharding is not None:
    places = tree.named(_places(params, sharding))
  params = restore.load(path, places)
  _shard_digests.verify('load', path, hashes, tree.named(params))
  if like is not None:
    params = _structure.fit(like, tree.named(params), path)
  return params


def _places(params: types.Params, sharding: Any) -> types.Tree:
  """Returns the sharding of every leaf."""
  if callable(sharding):
    return tree.map_named(lambda name, _: sharding(name), params)
  return tree.broadcast_prefix(sharding, params)
