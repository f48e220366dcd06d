"""Parameters under PyTorch's names: read and written without PyTorch.

One table translates a module's path in Flax to its path in PyTorch; the name
and the axes of a leaf follow from its kind.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import tree, types

LEAVES = {
  ('params', 'kernel'): 'weight',
  ('params', 'scale'): 'weight',
  ('params', 'bias'): 'bias',
  ('batch_stats', 'mean'): 'running_mean',
  ('batch_stats', 'var'): 'running_var',
}
# From PyTorch's axes to Flax's: [out, in, h, w] and [out, in].
AXES = {('kernel', 4): (2, 3, 1, 0), ('kernel', 2): (1, 0)}


def from_torch(
  state: Mapping[str, Any], *, like: types.Tree, modules: Mapping[str, str]
) -> types.Tree:
  """Reads variables from a state dictionary; entries must match one to one.

  Args:
    state: arrays by PyTorch's names.
    like: variables of the model, or their shapes: ``params`` and, where there
      are any, ``batch_stats``.
    modules: PyTorch's module for each module of Flax, ``'block_0/conv_0'``.

  Returns:
    A tree like ``like``, of the dtypes of ``state``.

  Raises:
    ValueError: naming an entry that is missing, unknown, or of another shape.
  """
  names = {name: _torch_name(name, modules) for name in tree.named(like)}
  wanted = list(names.values())
  for name in wanted:
    if name not in state:
      hint = tree.nearest(name, [n for n in state if n not in wanted])
      raise ValueError(f"the state has no '{name}'{hint}: is it whole?")
  for name in state:
    if name not in wanted:
      raise ValueError(
        f"the model has nothing for '{name}' of the state: take it out, or "
        'choose another model'
      )

  def read(name: str, leaf: Any) -> types.Array:
    value = np.asarray(state[names[name]])
    axes = _axes(name, value)
    if axes is not None:
      value = value.transpose(axes)
    if value.shape != leaf.shape:
      raise ValueError(
        f"'{names[name]}' of the state is {list(value.shape)} in the order of "
        f"Flax, the model's '{name}' is {list(leaf.shape)}"
      )
    return jnp.asarray(value)

  return tree.map_named(read, like)


def to_torch(
  variables: types.Tree, *, modules: Mapping[str, str]
) -> dict[str, np.ndarray]:
  """Writes variables as a state dictionary, the inverse of ``from_torch``.

  Args:
    variables: ``params`` and, where there are any, ``batch_stats``.
    modules: PyTorch's module for each module of Flax.

  Returns:
    Arrays by PyTorch's names.

  Raises:
    ValueError: naming a leaf that has no name in PyTorch, or one that is
      missing.
  """
  state = {}
  for name, leaf in tree.named(variables).items():
    value = np.asarray(leaf)
    axes = _axes(name, value)
    if axes is not None:
      value = np.ascontiguousarray(value.transpose(np.argsort(axes)))
    state[_torch_name(name, modules)] = value
  return state


def _axes(name: str, value: np.ndarray) -> tuple[int, ...] | None:
  """Returns the transposition from PyTorch's axes to Flax's, if any."""
  return AXES.get((name.rpartition('/')[2], value.ndim))


def _torch_name(name: str, modules: Mapping[str, str]) -> str:
  """Translates ``'params/block_0/conv_0/kernel'``."""
  collection, _, rest = name.partition('/')
  module, _, leaf = rest.rpartition('/')
  if module not in modules or (collection, leaf) not in LEAVES:
    hint = tree.nearest(module, list(modules))
    raise ValueError(f"no name in PyTorch for '{name}'{hint}: take it out")
  return f'{modules[module]}.{LEAVES[collection, leaf]}'
