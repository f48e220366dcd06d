"""Checks of counts and choices."""

from collections.abc import Sequence
import operator

import numpy as np

from wsl import tree


def count(
  function: str,
  argument: str,
  value: int,
  *,
  least: int = 1,
  most: int | None = None,
  name: str = '',
) -> None:
  """Checks an integer, for a public function.

  Args:
    function: the public function.
    argument: the name of its argument.
    value: the argument.
    least: the smallest allowed value.
    most: the largest allowed value; None for no bound.
    name: of the argument that gives the bound.

  Raises:
    ValueError: naming the argument.
  """
  try:
    number = operator.index(value)
  except TypeError:
    kind = f'is a {type(value).__name__}'
    shown = f'={value!r}' if np.isscalar(value) else ''
    raise ValueError(
      f'{function}: {argument}{shown} {kind}, expected an integer'
    ) from None
  if number < least or (most is not None and number > most):
    bound = '' if most is None else f' and at most {name}={most}'
    raise ValueError(
      f'{function}: {argument}={value}, expected at least {least}{bound}'
    )


def choice(
  function: str, argument: str, value: str, names: Sequence[str]
) -> None:
  """Checks that a string is one of several.

  Raises:
    ValueError: naming the argument, the nearest name and all names.
  """
  if value not in names:
    hint = tree.nearest(str(value), list(names))
    raise ValueError(
      f"{function}: {argument}='{value}' is none of {', '.join(names)}{hint}"
    )
