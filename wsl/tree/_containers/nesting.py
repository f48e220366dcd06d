"""Nested trees and flat dicts of dotted names."""

from collections.abc import Mapping
from typing import Any

from wsl import types
from wsl.tree import _names


def flatten(tree: types.Tree, *, separator: str = '.') -> dict[str, Any]:
  """Returns the leaves in a flat dict, by names such as ``layers.0.w``.

  Args:
    tree: any pytree.
    separator: what joins the keys of a name.

  Returns:
    A dict in the tree's order; ``nest`` inverts it for nested dicts.

  Raises:
    ValueError: if two leaves get one name.

  Example:
    >>> flatten({'layers': [{'w': 1}, {'w': 2}], 'norm': 3})
    {'layers.0.w': 1, 'layers.1.w': 2, 'norm': 3}
  """
  named = _names.named(tree)
  flat = {name.replace('/', separator): leaf for name, leaf in named.items()}
  if len(flat) < len(named):
    names = [name.replace('/', separator) for name in named]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(
      f"flatten: two leaves would be named '{twice}': give another separator="
    )
  return flat


def nest(flat: Mapping[str, Any], *, separator: str = '.') -> dict[str, Any]:
  """Returns the leaves of a flat dict in nested dicts.

  Lists and tuples are not recognised by their numbers: use ``tree.like``.

  Args:
    flat: leaves by name, as ``checkpoint.load`` returns them from files of
      Hugging Face.
    separator: what joins the keys of a name.

  Returns:
    Nested dicts.

  Raises:
    ValueError: if a name is both a leaf and the start of another.

  Example:
    >>> nest({'layers.0.w': 1, 'layers.1.w': 2, 'norm': 3})
    {'layers': {'0': {'w': 1}, '1': {'w': 2}}, 'norm': 3}
  """
  nested: dict[str, Any] = {}
  nodes: dict[str, dict[str, Any]] = {'': nested}
  for name, leaf in flat.items():
    *above, last = str(name).split(separator)
    node, path = nested, ''
    for key in above:
      path = f'{path}{separator}{key}'
      if path not in nodes:
        if key in node:
          raise _both(path.removeprefix(separator))
        nodes[path] = node[key] = {}
      node = nodes[path]
    if last in node:
      raise _both(name)
    node[last] = leaf
  return nested


def _both(name: str) -> ValueError:
  """Returns the error for a name that is a leaf and a node."""
  return ValueError(
    f"nest: '{name}' is a leaf, and the start of other names: rename it"
  )
