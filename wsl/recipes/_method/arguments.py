"""What a method of a recipe is given, and what it declares."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from wsl import types

NEEDED: Any = ...  # stands for the default of a parameter that has none


class Arguments(NamedTuple):
  """The values of a method's parameters for some tensors.

  Attributes:
    shared: by name.
    each: by name, one value for each input (without the base, if it has a
      role of its own).
    key: for methods that draw random numbers.
  """

  shared: Mapping[str, Any]
  each: Mapping[str, tuple[Any, ...]]
  key: types.PRNGKey | None


class Method(NamedTuple):
  """A method of mergekit.

  Attributes:
    merge: maps (base, the other models, arguments) to the merged model.
    shared: the default of each parameter for all inputs.
    each: the default of each parameter that inputs have of their own.
    base: ``'needed'``, ``'optional'``, or ``'input'``: it is one more input.
    inputs: the least and the greatest number of inputs, the base among them.
  """

  merge: Callable[[types.Params, Sequence[types.Params], Arguments], Any]
  shared: Mapping[str, Any] = {}
  each: Mapping[str, Any] = {}
  base: str = 'needed'
  inputs: tuple[int, int | None] = (1, None)
