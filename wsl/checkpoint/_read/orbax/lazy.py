"""Orbax, leaf by leaf: each array is opened by TensorStore when it is read.

An item records its tree in ``_METADATA``; the arrays lie under their dotted
names in one OCDBT database, or each in a folder. Before 2024 the tree was a
file ``checkpoint`` in msgpack, with small arrays inside and a placeholder for
each of the others. TensorStore is a dependency of Orbax.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from wsl import tree, types
from wsl.checkpoint import _shard_digests
from wsl.checkpoint._read import messages, stored
from wsl.checkpoint._read.formats import flax_msgpack
from wsl.checkpoint._read.orbax import array, restore

_METADATA = '_METADATA'
_OLD = 'checkpoint'
_PLACEHOLDER = 'PLACEHOLDER://'
_STRINGS = '_strings.json'
_DATABASE = 'manifest.ocdbt'


def load(item: pathlib.Path, options: stored.Options) -> types.Tree:
  """Returns the tree of an item, arrays as leaves on demand.

  Args:
    item: the folder of the item, see ``layout.find_item``.
    options: what the leaves share.

  Raises:
    ValueError: if the item is damaged, or was written by T5X.
  """
  if not (item / _METADATA).exists():
    return _load_old(item, options)
  return jax.tree.map(
    lambda x: _leaf(options, x) if isinstance(x, array.Array) else x,
    _arrays('load', item),
  )


def verify(caller: str, item: pathlib.Path, like: types.Tree) -> None:
  """Verifies the recorded hashes of a step before it is restored.

  Args:
    caller: the function that error messages name.
    item: the folder of the item.
    like: a tree of the same names; of a leaf with a sharding, a process
      verifies the shards that its own devices will hold.

  Raises:
    ValueError: if a leaf does not have its hash, or cannot be read.
  """
  if not _shard_digests.read(caller, item):
    return
  arrays = tree.named(_arrays(caller, item))
  for name, leaf in tree.named(like).items():
    found = arrays[name]
    if isinstance(found, array.Array):
      sharding = getattr(leaf, 'sharding', None)
      regions: list[tuple[slice, ...]] = [()]
      if sharding is not None:
        places = sharding.addressable_devices_indices_map(leaf.shape)
        regions = [index for index in places.values() if index is not None]
      found.verify(regions)


def _arrays(caller: str, item: pathlib.Path) -> types.Tree:
  """Returns the arrays of an item, and its strings, in its tree."""
  described = restore.describe(caller, item)
  spec, strings = _spec(item), _strings(item)
  shards = _shard_digests.read(caller, item)

  def leaf(path: tuple[Any, ...], described: Any) -> Any:
    keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
    name, dotted = '/'.join(keys), '.'.join(keys)
    if not hasattr(described, 'dtype'):
      return strings.get(dotted, '')
    return array.Array(
      item,
      name,
      spec(dotted),
      tuple(described.shape),
      np.dtype(described.dtype),
      getattr(getattr(described, 'storage', None), 'chunk_shape', None),
      shards.get(name, ()),
      caller,
    )

  return jax.tree_util.tree_map_with_path(leaf, described)


def _load_old(item: pathlib.Path, options: stored.Options) -> types.Tree:
  """Returns the tree of an item from before 2024."""
  content = flax_msgpack.open_file(item / _OLD, options, None)
  spec = _spec(item)

  def leaf(name: str, value: Any) -> Any:
    if not isinstance(value, str):
      return value
    if not value.startswith(_PLACEHOLDER):
      raise ValueError(
        f'load: leaf {messages.quote(name)} of {item} is '
        f'{messages.quote(value)}, not an array (was it written by T5X?): '
        'convert it with the program that wrote it'
      )
    found = spec(value.removeprefix(_PLACEHOLDER))
    try:
      opened = array.open_array(found)
    except Exception as error:
      raise restore.damaged('load', item, error, name) from None
    shape, dtype = tuple(opened.shape), opened.dtype.numpy_dtype
    chunk = opened.chunk_layout.read_chunk.shape
    return _leaf(options, array.Array(item, name, found, shape, dtype, chunk))

  return tree.map_named(leaf, content)


def _leaf(options: stored.Options, found: array.Array) -> tree.Stored:
  """Returns an array as a leaf on demand."""
  parts = stored.Parts(found.region)
  if found.rows:
    parts = stored.Parts(found.region, found.read_into, found.slab_bytes)
  fetch = stored.Fetch(
    *(found.name, found.dtype, found.shape, None, 0, options),
    whole=found.whole,
    parts=parts,
  )
  return stored.leaf(fetch)


def _spec(item: pathlib.Path) -> Any:
  """Returns a function from an array's dotted name to its TensorStore spec."""
  zarr3 = False
  if (item / _METADATA).exists():
    try:
      found = json.loads((item / _METADATA).read_bytes())
      zarr3 = bool(found.get('use_zarr3', False))
    except (ValueError, AttributeError, RecursionError) as error:
      raise restore.damaged('load', item, error) from None
  driver = 'zarr3' if zarr3 else 'zarr'

  def spec(name: str) -> dict[str, Any]:
    if (item / _DATABASE).exists():
      base = f'file://{item.absolute()}/'
      store = {'driver': 'ocdbt', 'base': base, 'path': f'{name}/'}
    else:
      store = {'driver': 'file', 'path': f'{item.absolute() / name}/'}
    return {'driver': driver, 'kvstore': store}

  return spec


def _strings(item: pathlib.Path) -> dict[str, str]:
  """Returns the strings of an item by their dotted names."""
  path = item / _STRINGS
  if not path.exists():
    return {}
  try:
    return dict(json.loads(path.read_bytes()))
  except (ValueError, TypeError, RecursionError) as error:
    raise restore.damaged('load', item, error) from None
