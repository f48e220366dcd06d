"""The structure of a tree: recorded in metadata, rebuilt on loading.

Tensors in a file have names and no structure. ``save`` records the structure as
JSON: a leaf is its name, a dict is an object, a list is ``["list", ...]``, a
tuple ``["tuple", ...]``, ``None`` is null. A dict whose keys are not strings is
``["dict", [key, child], ...]``, a key a JSON value or ``["tuple", ...]``. Any
other node (a NamedTuple, a dataclass) becomes a dict of its fields.
"""

from collections.abc import Iterable
import contextlib
import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np

from wsl import tree, types

KEY = 'wsl.tree'
# The types of a dict's keys that JSON preserves.
_KEYS = (str, int, bool, float)


def record(params: types.Params, names: Iterable[str]) -> str:
  """Returns the structure of a tree, whose leaves have the names, as JSON."""
  named = jax.tree.unflatten(jax.tree.structure(params), names)
  return json.dumps(_record(named), ensure_ascii=False, separators=(',', ':'))


def _record(node: Any) -> Any:
  """Converts a tree of names to the nested lists and dicts of the record."""
  if node is None or isinstance(node, str):
    return node
  if type(node) is dict and all(type(key) is str for key in node):
    return {key: _record(node[key]) for key in sorted(node)}
  children = jax.tree_util.tree_leaves_with_path(
    node, is_leaf=lambda x: x is not node
  )
  if type(node) in (list, tuple):
    return [type(node).__name__, *(_record(child) for _, child in children)]
  keys = [_key(path) for path, _ in children]
  values = [_record(child) for _, child in children]
  if all(isinstance(key, str) for key in keys):
    return dict(zip(keys, values))
  return ['dict', *zip(keys, values)]


def _key(path: tuple[Any, ...]) -> Any:
  """Returns the key of a child as JSON.

  A key of another type than ``_KEYS``, and the index or the field of a node
  that is not a dict, becomes a string.
  """
  key = path[0].key if isinstance(path[0], jax.tree_util.DictKey) else None
  encoded = _encode_key(key)
  if encoded is None:
    return jax.tree_util.keystr(path, simple=True)
  return encoded


def _encode_key(key: Any) -> Any:
  """Returns a dict's key as JSON, or ``None`` if its type is not exact."""
  if type(key) in _KEYS and key == key:
    return key
  if type(key) is tuple:
    items = [_encode_key(item) for item in key]
    return None if any(x is None for x in items) else ['tuple', *items]
  return None


def _decode_key(key: Any) -> Any:
  """Inverts ``_encode_key``."""
  if isinstance(key, list):
    if key[0] != 'tuple':
      raise ValueError(key)
    return tuple(_decode_key(item) for item in key[1:])
  return key


def rebuild(
  text: str, leaves: dict[str, Any], path: pathlib.Path
) -> types.Params:
  """Returns the leaves in the recorded structure.

  Raises:
    ValueError: if the record does not use every leaf of the file.
  """
  used: set[str] = set()
  params, sound = None, True
  try:
    params = _build(json.loads(text), leaves, used)
  except (KeyError, IndexError, TypeError, ValueError, RecursionError):
    sound = False
  if not sound or used != set(leaves):
    raise ValueError(
      f"load: the structure recorded in {path} does not fit the file's leaves "
      '(is it one shard of several, or edited?): load all shards, or give like='
    )
  return params


def _build(node: Any, leaves: dict[str, Any], used: set[str]) -> Any:
  """Returns a recorded node with its leaves, and adds their names to a set."""
  # A function in ``rebuild`` that calls itself would be a reference cycle with
  # all leaves: their files would stay open until a garbage collection.
  if node is None:
    return None
  if isinstance(node, str):
    if node in used:
      raise ValueError(node)
    used.add(node)
    return leaves[node]
  build = functools.partial(_build, leaves=leaves, used=used)
  if isinstance(node, dict):
    return {key: build(child) for key, child in node.items()}
  if node[0] == 'dict':
    found = {_decode_key(key): build(child) for key, child in node[1:]}
    sorted(found)  # as every pytree does
    return found
  kind = {'list': list, 'tuple': tuple}[node[0]]
  return kind(build(child) for child in node[1:])


def fit(
  like: types.Params, leaves: dict[str, Any], path: pathlib.Path
) -> types.Params:
  """Returns the leaves in the structure of ``like``.

  Names may differ as for ``tree.like``: ``a.0.w`` is the leaf ``a/0/w``.

  Raises:
    ValueError: naming the leaf whose name or shape differs.
  """
  wanted = tree.named(like)
  # If the names do not fit, the loops below explain it by path and argument.
  with contextlib.suppress(ValueError):
    leaves = tree.named(tree.like(like, leaves))
  for name in wanted:
    if name not in leaves:
      raise ValueError(
        f"load: {path} has no leaf '{name}'{tree.nearest(name, list(leaves))}: "
        'like= must have the names of the file'
      )
  for name, leaf in leaves.items():
    if name not in wanted:
      raise ValueError(
        f"load: {path} has a leaf '{name}' that like= does not have"
        f'{tree.nearest(name, list(wanted))}'
      )
    shape, found = np.shape(wanted[name]), getattr(leaf, 'shape', ())
    if found != shape:
      raise ValueError(
        f"load: leaf '{name}' of {path} has shape {found}, like= has {shape}"
      )
  return tree.map_named(lambda name, _: leaves[name], like)
