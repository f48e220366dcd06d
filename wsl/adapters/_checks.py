"""Checks of arguments that several functions of the room take."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types


def whole(function: str, **values: Any) -> None:
  """Checks that each argument is None or an integer, at least 1.

  Raises:
    ValueError: naming the argument.
  """
  for name, value in values.items():
    right = isinstance(value, (int, np.integer)) and value >= 1
    if value is not None and (isinstance(value, bool) or not right):
      raise ValueError(
        f'{function}({name}={value!r}): expected an integer >= 1'
      )


def share(function: str, **values: Any) -> None:
  """Checks that each argument is None or a number x, 0 < x <= 1.

  Raises:
    ValueError: naming the argument.
  """
  tree.check_scalars(function, remedy='it is one for all leaves', **values)
  for name, value in values.items():
    if value is not None and not 0 < value <= 1:
      raise ValueError(
        f'{function}({name}={value!r}): expected 0 < {name} <= 1'
      )


def dtype(function: str, value: Any) -> None:
  """Checks that the dtype of factors is None or of real floats.

  Raises:
    ValueError: naming it.
  """
  if value is None:
    return
  try:
    real = jnp.issubdtype(name := jnp.dtype(value), jnp.floating)
  except TypeError:
    name, real = type(value), False
  if not real:
    raise ValueError(
      f'{function}(dtype={name}): expected a dtype of floats, such as float32'
    )


def arrays(function: str, params: types.Tree, remedy: str) -> None:
  """Checks that leaves are arrays whose values are known, not factors.

  Args:
    function: the public function, as the user called it.
    params: a model or a task vector.
    remedy: what to do with factors, for the message.

  Raises:
    ValueError: naming the leaf.
  """
  for name, x in tree.named(params, is_leaf=deltas_lib.is_factors).items():
    if deltas_lib.is_factors(x):
      raise ValueError(f"{function}: leaf '{name}' is in factors: {remedy}")
    if tree.is_traced(x):
      raise ValueError(
        f"{function}: leaf '{name}' is traced, but the ranks depend on its "
        'values: call it outside of jit'
      )
