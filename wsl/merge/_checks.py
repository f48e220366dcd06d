"""Checks of arguments; every message opens with the function that was called.

A traced value cannot be compared, so ranges are checked outside of traces only.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


def fraction(
  function: str, name: str, value: Any, meaning: str, *, positive: bool = False
) -> None:
  """Checks that a fraction, or an array of them, lies between 0 and 1.

  Args:
    function: the public function, as the user called it.
    name: the argument.
    value: a number or an array; traced values pass.
    meaning: what the argument is, for the message.
    positive: whether 0 is refused.

  Raises:
    ValueError: naming the function, the argument, its value and its range.
  """
  if isinstance(value, jax.core.Tracer):
    return
  values = np.asarray(value, np.float64)
  above = values > 0 if positive else values >= 0
  if not np.all(above & (values <= 1)):
    sign = '<' if positive else '<='
    raise ValueError(
      f'{function}({name}={value}): {meaning}, expected 0 {sign} {name} <= 1'
    )


def at_least_zero(function: str, name: str, value: Any) -> None:
  """Checks that a number, or all numbers of an array, are >= 0.

  Raises:
    ValueError: naming the function, the argument and its value; traced ones
      pass.
  """
  if isinstance(value, jax.core.Tracer):
    return
  if not np.all(np.asarray(value, np.float64) >= 0):
    raise ValueError(f'{function}({name}={value}): expected numbers >= 0')


def numbers(label: str, values: Any) -> Any:
  """Returns a number, or numbers for each model; traced ones as one array.

  Raises:
    ValueError: if the values are no numbers, or lists of different lengths.
  """
  leaves = jax.tree.leaves(values)
  try:
    if any(isinstance(x, jax.Array) for x in leaves):
      return jnp.asarray(values)
    kind = np.asarray(values).dtype
  except (TypeError, ValueError):
    kind = np.dtype(object)
  if not leaves or kind.kind not in 'biufV':  # V: floats of ml_dtypes
    raise ValueError(
      f'{label} is {values!r}, expected a number, or a list of one for each '
      'model'
    )
  return values


def shape_per_model(label: str, values: Any, models: int) -> None:
  """Checks that there is one value, or one for each of T models.

  Raises:
    ValueError: if there are neither one nor T of them.
  """
  if np.shape(values) not in ((), (models,)):
    raise ValueError(
      f'{label} has shape {np.shape(values)}, expected () or ({models},), one '
      'for each model'
    )


def per_model(label: str, values: Any, models: int) -> types.Array:
  """Broadcasts a number, or an array of T of them, to ``[T]``.

  Numbers stay on the host in float64: JAX would round them where x64 is off.

  Raises:
    ValueError: if there are neither one nor T of them, or one is NaN.
  """
  values = numbers(label, values)
  xp: Any = jnp if isinstance(values, jax.Array) else np
  values = xp.asarray(values)
  shape_per_model(label, values, models)
  known = not isinstance(values, jax.core.Tracer)
  if known and np.isnan(np.asarray(values, np.float64)).any():
    raise ValueError(f'{label} is {values}, expected no NaN')
  return xp.broadcast_to(values, (models,))


def weights(function: str, values: Any, models: int) -> types.Array:
  """Returns one weight for each of T models, ``[T]``, of any sign.

  Raises:
    ValueError: if there are not T numbers, or one is not finite.
  """
  values = numbers(f'{function}: weights', values)
  xp: Any = jnp if isinstance(values, jax.Array) else np
  values = xp.asarray(values)
  if values.shape != (models,):
    raise ValueError(
      f'{function}: weights has shape {values.shape}, expected ({models},), '
      'one for each model'
    )
  known = not isinstance(values, jax.core.Tracer)
  if known and not np.all(np.isfinite(np.asarray(values, np.float64))):
    raise ValueError(f'{function}(weights={values}): expected finite numbers')
  return values


def some_sum(function: str, values: types.Array) -> None:
  """Checks that the sum of weights, by which they are divided, is not zero."""
  known = not isinstance(values, jax.core.Tracer)
  if known and not np.sum(np.asarray(values, np.float64)):
    raise ValueError(f'{function}(weights={values}): they sum to 0')


def integer(function: str, name: str, value: Any, *, least: int) -> None:
  """Checks that an argument is an integer of at least a number."""
  whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
  if not whole or value < least:
    raise ValueError(
      f'{function}({name}={value!r}): expected an integer >= {least}'
    )


def axis(function: str, value: int, leaf: str, shape: tuple[int, ...]) -> None:
  """Checks that a leaf of some shape has an axis."""
  if value not in range(-len(shape), len(shape)):
    raise ValueError(
      f"{function}(axis={value}): leaf '{leaf}' of shape {shape} has no such "
      'axis'
    )


def choose(argument: str, value: str, choices: dict[str, Any]) -> Any:
  """Returns the choice of that name.

  Raises:
    ValueError: naming the argument, its value, the choices and the nearest one.
  """
  if not isinstance(value, str) or value not in choices:
    hint = tree.nearest(str(value), list(choices))
    raise ValueError(
      f'{argument}={value!r}: expected one of {sorted(choices)}{hint}'
    )
  return choices[value]
