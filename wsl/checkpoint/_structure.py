"""The structure of a tree: recorded in metadata, rebuilt on loading.

Tensors in a file have names and no structure. ``save`` records the structure
(``tree.record``) as JSON.
"""

from collections.abc import Iterable
import contextlib
import json
import pathlib
from typing import Any

import jax
import numpy as np

from wsl import tree, types

KEY = 'wsl.tree'


def record(params: types.Params, names: Iterable[str]) -> str:
  """Returns the structure of a tree, whose leaves have the names, as JSON."""
  named = jax.tree.unflatten(jax.tree.structure(params), names)
  return json.dumps(
    tree.record(named), ensure_ascii=False, separators=(',', ':')
  )


def rebuild(
  text: str, leaves: dict[str, Any], path: pathlib.Path
) -> types.Params:
  """Returns the leaves in the recorded structure.

  Raises:
    ValueError: if the record does not use every leaf of the file.
  """
  try:
    return tree.rebuild(json.loads(text), leaves)
  except (ValueError, RecursionError):
    raise ValueError(
      f"load: the structure recorded in {path} does not fit the file's leaves "
      '(is it one shard of several, or edited?): load all shards, or give like='
    ) from None


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
