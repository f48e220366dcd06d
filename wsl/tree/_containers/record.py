"""The structure of a tree as nested lists and dicts that JSON holds.

A leaf is its name, a dict is an object, a list is ``["list", ...]``, a tuple
``["tuple", ...]``, ``None`` is null. A dict whose keys are not strings is
``["dict", [key, child], ...]``, a key a JSON value or ``["tuple", ...]``. Any
other node (a NamedTuple, a dataclass) becomes a dict of its fields.
"""

from collections.abc import Mapping
import functools
from typing import Any

import jax

from wsl import types

# The types of a dict's keys that JSON preserves.
_KEYS = (str, int, bool, float)


def record(names: types.Tree) -> Any:
  """Returns the structure of a tree of names, as lists and dicts for JSON.

  Args:
    names: a tree whose leaves are strings, each another.

  Returns:
    Lists, dicts with strings as keys, strings and ``None``; ``rebuild`` inverts
    it for dicts, lists, tuples and ``None``.

  Example:
    >>> record({'a': ['x', None], 'b': ('y',)})
    {'a': ['list', 'x', None], 'b': ['tuple', 'y']}
  """
  if names is None or isinstance(names, str):
    return names
  if type(names) is dict and all(type(key) is str for key in names):
    return {key: record(names[key]) for key in sorted(names)}
  children = jax.tree_util.tree_leaves_with_path(
    names, is_leaf=lambda x: x is not names
  )
  if type(names) in (list, tuple):
    return [type(names).__name__, *(record(child) for _, child in children)]
  keys = [_key(path) for path, _ in children]
  values = [record(child) for _, child in children]
  if all(isinstance(key, str) for key in keys):
    return dict(zip(keys, values))
  return ['dict', *zip(keys, values)]


def rebuild(node: Any, leaves: Mapping[str, Any]) -> types.Tree:
  """Returns leaves in a structure that ``record`` has written.

  Args:
    node: of ``record``, before or after JSON.
    leaves: the leaves by name.

  Returns:
    The tree.

  Raises:
    ValueError: if the record does not use every leaf once, or is damaged.

  Example:
    >>> rebuild({'a': ['list', 'x', None]}, {'x': 1})
    {'a': [1, None]}
  """
  used: set[str] = set()
  try:
    tree = _build(node, leaves, used)
  except (KeyError, IndexError, TypeError, RecursionError) as error:
    raise ValueError(f'rebuild: the record is damaged: {error!r}') from None
  if used != set(leaves):
    raise ValueError('rebuild: the record does not use every leaf: see record')
  return tree


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


def _build(node: Any, leaves: Mapping[str, Any], used: set[str]) -> Any:
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
