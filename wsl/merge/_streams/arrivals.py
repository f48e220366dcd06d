"""What all streams share: the first state, and the check of an arrival."""

from collections.abc import Callable
from typing import Any, TYPE_CHECKING

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _stack

if TYPE_CHECKING:
  import optax


def transformation(
  init: Callable[..., Any], update: Callable[..., Any]
) -> 'optax.GradientTransformation':
  """Returns both functions as a transformation of optax."""
  # Imported where it is used: `import wsl` does not load optax.
  import optax

  return optax.GradientTransformation(init, update)


def zeros(function: str, params: types.Params) -> types.Delta:
  """Returns the zero task vector of a model, in float32 or wider.

  Args:
    function: the public function, as the user called it.
    params: the base, or a task vector; leaves that are no floats are None in
      the result.

  Raises:
    ValueError: if no leaf is of floats.
  """

  def zero(x: Any) -> types.Array | None:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
      return None
    return jnp.zeros(x.shape, tree.wide_dtype(x))

  params = deltas_lib.dense(params)
  tree.check_not_narrowed(function, params)
  found = jax.tree.map(zero, params)
  if not jax.tree.leaves(found):
    raise ValueError(f'{function}: the model has no float leaf to merge')
  return found


def arrived(
  function: str, delta: types.Delta, merged: types.Delta
) -> types.Delta:
  """Returns a task vector in the structure and the dtypes of a merge.

  Args:
    function: the public function, as the user called it.
    delta: the task vector, leaves ``[...]`` or in factors.
    merged: the merge so far.

  Raises:
    ValueError: if a leaf is missing or has another shape, naming it.
  """
  label = f'{function}: the task vector'
  is_none = lambda x: x is None
  delta = deltas_lib.dense(delta)
  delta = tree.conform(label, delta, 'the state', merged, is_leaf=is_none)

  def cast(name: str, old: Any, new: Any) -> Any:
    if new is None or tuple(new.shape) != tuple(old.shape):
      raise ValueError(
        f'{label} has {"None" if new is None else tuple(new.shape)} at leaf '
        f"'{name}', the state {tuple(old.shape)}: give models of one base"
      )
    return new.astype(old.dtype)

  return tree.map_named(cast, merged, _stack.arrays(function, delta))
