"""The structure of a tree: recorded in metadata, rebuilt on loading.

Tensors in a file have names and no structure. ``save`` records the structure as
JSON: a leaf is its name, a dict is an object, a list is ``["list", ...]``, a
tuple ``["tuple", ...]``, ``None`` is null. Any other node (a NamedTuple, a
dataclass) becomes a dict of its fields.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from wsl import tree, types

KEY = 'wsl.tree'


def record(params: types.Params) -> str:
  """Returns the structure of a tree as JSON."""
  names = tree.map_named(lambda name, _: name, params)
  return json.dumps(_record(names), ensure_ascii=False, separators=(',', ':'))


def _record(node: Any) -> Any:
  """Converts a tree of names to the nested lists and dicts of the record."""
  if node is None or isinstance(node, str):
    return node
  children = jax.tree_util.tree_leaves_with_path(
    node, is_leaf=lambda x: x is not node
  )
  if type(node) in (list, tuple):
    return [type(node).__name__, *(_record(child) for _, child in children)]
  return {
    jax.tree_util.keystr(path, simple=True): _record(child)
    for path, child in children
  }


def rebuild(
  text: str, leaves: dict[str, Any], path: pathlib.Path
) -> types.Params:
  """Returns the leaves in the recorded structure.

  Raises:
    ValueError: if the record does not use every leaf of the file.
  """
  used = set()

  def build(node: Any) -> Any:
    if node is None:
      return None
    if isinstance(node, str):
      used.add(node)
      return leaves[node]
    if isinstance(node, dict):
      return {key: build(child) for key, child in node.items()}
    kind = {'list': list, 'tuple': tuple}[node[0]]
    return kind(build(child) for child in node[1:])

  try:
    params = build(json.loads(text))
  except (KeyError, IndexError, TypeError, json.JSONDecodeError):
    used.clear()
  if used != set(leaves):
    raise ValueError(
      f"load: the structure recorded in {path} does not fit the file's leaves "
      '(was it edited?): give like='
    )
  return params


def fit(
  like: types.Params, leaves: dict[str, Any], path: pathlib.Path
) -> types.Params:
  """Returns the leaves in the structure of ``like``.

  Raises:
    ValueError: naming the leaf whose name or shape differs.
  """
  wanted = tree.named(like)
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
    shape = np.shape(wanted[name])
    if leaf.shape != shape:
      raise ValueError(
        f"load: leaf '{name}' of {path} has shape {leaf.shape}, "
        f'like= has {shape}'
      )
  return tree.map_named(lambda name, _: leaves[name], like)
