"""Leaves in the memory of accelerators."""

from collections.abc import Sequence
from typing import Any

import jax

from wsl import types
from wsl.tree import _nodes
from wsl.tree._reads import gpu


def on_accelerator(x: Any) -> jax.Array | None:
  """Returns the concrete array of a leaf in the memory of accelerators."""
  array = x.array if isinstance(x, _nodes.Stored) else x
  if not isinstance(array, jax.Array) or isinstance(array, jax.core.Tracer):
    return None
  sharding: Any = array.sharding
  on_cpu = next(iter(sharding.device_set)).platform == 'cpu'
  on_host = 'host' in (sharding.memory_kind or '')
  return None if on_cpu or on_host else array


def common(arrays: Sequence[jax.Array | None]) -> Any:
  """Returns the device or the mesh of all arrays.

  None if they differ in it, or one array is None.
  """
  found = set()
  shardings: set[Any] = {None if x is None else x.sharding for x in arrays}
  for sharding in shardings:
    several = sharding is not None and len(sharding.device_set) > 1
    if sharding is None or (several and not hasattr(sharding, 'mesh')):
      return None
    found.add(sharding.mesh if several else next(iter(sharding.device_set)))
  return found.pop() if len(found) == 1 else None


def on_accelerators(tree: types.Tree) -> bool:
  """Returns True if the same accelerators hold all leaves, as known arrays.

  Args:
    tree: any pytree; deferred arrays count.

  Example:
    >>> import numpy as np
    >>> on_accelerators({'w': np.ones(2)})
    False
  """
  return common([on_accelerator(x) for x in jax.tree.leaves(tree)]) is not None


def places(leaf: Any) -> tuple[Any, ...] | None:
  """Returns the shardings of the arrays that an expression depends on.

  None if one of them is not in the memory of accelerators; numbers, small
  arrays and statistics may be elsewhere.
  """
  if not isinstance(leaf, _nodes.Computed):
    return None
  _, inputs, kinds = leaf.linear
  found = []
  for x, kind in zip(inputs, kinds):
    if kind is None:  # a pytree
      return None
    if kind.stored or isinstance(x, jax.Array):
      array = on_accelerator(x)
      if array is None:
        return None
      found.append(array.sharding)
    elif kind.array and not gpu.is_small(x):
      return None
  return tuple(found)
