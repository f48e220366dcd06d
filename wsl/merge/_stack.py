"""What every method shares: the number of models, and sums over them."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types


def count(deltas: types.Deltas) -> int:
  """Returns T, the first axis that every leaf must share.

  Raises:
    ValueError: naming the leaf that is no stack of floats, or of another T.
  """
  models = None
  for name, leaf in tree.named(deltas).items():
    kind = getattr(leaf, 'dtype', type(leaf).__name__)
    if isinstance(kind, str) or not jnp.issubdtype(kind, jnp.inexact):
      raise ValueError(
        f"leaf '{name}' is of {kind}, not a stack of floats: stack models by "
        'deltas.stack, which leaves integers out'
      )
    if not leaf.shape or not leaf.shape[0]:
      raise ValueError(
        f"leaf '{name}' of shape {leaf.shape} holds no model: stack at least "
        'one by deltas.stack'
      )
    models = models or leaf.shape[0]
    if leaf.shape[0] != models:
      raise ValueError(
        f"leaf '{name}' stacks {leaf.shape[0]} models, the leaves before it "
        f'{models}: stack them by deltas.stack'
      )
  if models is None:
    raise ValueError('the deltas have no float leaf: nothing to merge')
  return models


def add_up(x: types.Array) -> types.Array:
  """Sums ``[T, ...] -> [...]``, model by model.

  Written out over T: XLA's CPU backend emits a scalar loop for a reduction of
  the leading axis, thirty times slower than the memory.
  """
  return functools.reduce(jnp.add, jnp.unstack(x))


def each(
  kernel: Callable[..., types.Array], *stacks: types.Array
) -> types.Array:
  """Stacks ``kernel(x_t, ...)`` over the models of ``[T, ...]`` stacks.

  Written out over T as well, so that a chain of edits and a sum compiles to one
  loop over the entries, with no stack in between.
  """
  models = zip(*(jnp.unstack(x) for x in stacks))
  return jnp.stack([kernel(*xs) for xs in models])


def align(x: types.Array, leaf: types.Array) -> types.Array:
  """Gives ``[T]`` the rank of ``leaf``, ``[T, 1, ..., 1]``, to broadcast."""
  return x.reshape(x.shape + (1,) * (leaf.ndim - x.ndim))


def divide(x: types.Array, y: types.Array) -> types.Array:
  """Divides, with 0 where the denominator is 0; gradients stay finite."""
  return x / jnp.where(y == 0, jnp.full_like(y, jnp.inf), y)


def per_leaf(label: str, values: Any, deltas: types.Deltas) -> types.Tree:
  """Gives every leaf of ``deltas`` its value: the same one, unless a tree.

  Raises:
    ValueError: if the tree has not one value for each leaf, naming the leaf.
  """
  numbers = isinstance(values, (list, tuple)) and all(
    isinstance(value, (int, float)) for value in values
  )
  if numbers or jax.tree_util.all_leaves([values]):
    values = jnp.asarray(values) if numbers else values
    return jax.tree.map(lambda _: values, deltas)
  is_leaf = lambda x: x is None or isinstance(x, types.Gram)
  tree.check_names(label, values, 'the deltas', deltas, is_leaf=is_leaf)
  floats = tree.named(deltas)
  for name in tree.named(values, is_leaf=lambda x: isinstance(x, types.Gram)):
    if name not in floats:
      raise ValueError(
        f"{label}: a leaf '{name}' where the deltas have None: make it None"
      )
  return values


def per_model(label: str, values: Any, models: int) -> types.Array:
  """Spreads a number, or takes one for each model: ``[T]``.

  Raises:
    ValueError: if there are neither one nor T of them.
  """
  values = jnp.asarray(values)
  if values.shape not in ((), (models,)):
    raise ValueError(
      f'{label} has shape {values.shape}, expected () or ({models},), one for '
      'each model'
    )
  return jnp.broadcast_to(values, (models,))


def one_of(argument: str, value: str, choices: dict[str, Any]) -> Any:
  """Looks an option up, or names the nearest one.

  Raises:
    ValueError: naming the argument, its value and the choices.
  """
  if value not in choices:
    hint = tree.nearest(str(value), list(choices))
    raise ValueError(
      f'{argument}={value!r}: expected one of {sorted(choices)}{hint}'
    )
  return choices[value]
