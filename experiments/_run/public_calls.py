"""Public functions named in a config, checked against their real signatures."""

from collections.abc import Callable, Collection, Mapping, Sequence
import inspect
from types import ModuleType
from typing import Any

from wsl import tree


def find(
  name: str, rooms: Sequence[ModuleType], *, where: str
) -> Callable[..., Any]:
  """Returns the public function or class of that name.

  Args:
    name: such as ``'ties'``.
    rooms: modules to search, in this order.
    where: the place in the config, for the message.

  Returns:
    The function.

  Raises:
    ValueError: naming the nearest public name.
  """
  names = [
    n
    for room in rooms
    for n, value in vars(room).items()
    if callable(value) and not n.startswith('_')
  ]
  if name not in names:
    places = ' or '.join(room.__name__ for room in rooms)
    hint = tree.nearest(name, names) or f': it has {", ".join(sorted(names))}'
    raise ValueError(f"{where}: no '{name}' in {places}{hint}")
  return next(getattr(room, name) for room in rooms if name in vars(room))


def check(
  function: Callable[..., Any],
  arguments: Mapping[str, Any],
  *,
  supplied: Collection[str] = (),
  where: str,
) -> None:
  """Checks argument names against the signature of a function.

  Args:
    function: a function with positional operands and keyword-only
      hyperparameters, or a class.
    arguments: given in the config.
    supplied: names that the experiment supplies if the function has them.
    where: the place in the config, for the message.

  Raises:
    ValueError: naming the unknown argument and the nearest valid one, or the
      argument that is missing.
  """
  valid = options(function)
  free = [name for name in valid if name not in supplied]
  for name in arguments:
    if name not in valid:
      hint = tree.nearest(name, free) or f': it takes {", ".join(free)}'
      raise ValueError(
        f"{where}: {function.__name__} has no argument '{name}'{hint}"
      )
    if name in supplied:
      raise ValueError(
        f"{where}: the experiment gives {function.__name__} its '{name}': "
        'take it out of the config'
      )
  for name, parameter in valid.items():
    if (
      parameter.default is inspect.Parameter.empty
      and name not in arguments
      and name not in supplied
    ):
      raise ValueError(
        f"{where}: {function.__name__} needs an argument '{name}'"
      )


def options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """Returns the parameters that a config may set."""
  parameters = inspect.signature(function).parameters
  if inspect.isclass(function):  # a Flax module: its fields
    return {n: p for n, p in parameters.items() if n not in ('parent', 'name')}
  keyword = inspect.Parameter.KEYWORD_ONLY
  return {n: p for n, p in parameters.items() if p.kind == keyword}
