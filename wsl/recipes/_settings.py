"""The value of a parameter for one tensor: filters, gradients, precedence.

A setting is a number (or a bool); a gradient, a list of them over
the layers of a slice; or a list of conditions ``{filter, value}`` or ``{regex,
value}``, of which the first that matches is taken: a filter is a substring of
the tensor's name, and a regular expression is searched in it. Where none does,
the next level of the recipe decides.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

from wsl import tree


class Setting(NamedTuple):
  """A value, and the condition under which it holds, empty if there is none."""

  value: Any
  rule: str


def resolve(
  parameter: str,
  levels: Sequence[Mapping[str, Any]],
  *,
  tensor: str,
  position: float,
) -> Setting | None:
  """Returns the value of a parameter for one tensor, or None if none is set.

  Args:
    parameter: its name.
    levels: settings by name, the level that wins first.
    tensor: the tensor's name, for filters.
    position: of its layer in the slice, 0 .. 1, for gradients.

  Raises:
    ValueError: if a setting is malformed, naming the parameter.

  Example:
    >>> levels = [{'t': [{'filter': 'mlp', 'value': [0, 1]}]}, {'t': 0.5}]
    >>> resolve('t', levels, tensor='0.mlp.w', position=0.25)
    Setting(value=0.25, rule="filter 'mlp'")
    >>> resolve('t', levels, tensor='0.attn.w', position=0.25)
    Setting(value=0.5, rule='')
  """
  for level in levels:
    if parameter in level:
      found = _value(parameter, level[parameter], tensor, position)
      if found is not None:
        return found
  return None


def rules(setting: Any) -> list[str]:
  """Returns the conditions of a setting, as they are shown."""
  entries = setting if isinstance(setting, list) else [setting]
  found = [_rule(x) for x in entries if isinstance(x, Mapping)]
  return [rule for rule in found if rule]


def _value(
  parameter: str, setting: Any, tensor: str, position: float
) -> Setting | None:
  """Returns the value of one setting, or None if no condition matches."""
  if isinstance(setting, Mapping):
    setting = [setting]
  if not isinstance(setting, list):
    return Setting(_scalar(parameter, setting), '')
  conditions = [isinstance(entry, Mapping) for entry in setting]
  if not any(conditions):
    values = [_scalar(parameter, entry) for entry in setting]
    return Setting(_along(values, position), '') if values else None
  if not all(conditions):
    raise ValueError(
      f'{parameter}={setting!r}: mixes values with conditions: give '
      '{value: ...} for the value without a filter'
    )
  for entry in setting:
    known = set(entry) <= {'value', 'filter'} or set(entry) == {
      'value',
      'regex',
    }
    if 'value' not in entry or not known:
      raise ValueError(
        f'{parameter}: {entry!r}: expected value and filter, or value and regex'
      )
    if _matches(parameter, entry, tensor):
      found = _value(parameter, entry['value'], tensor, position)
      return found and Setting(found.value, _rule(entry))
  return None


def _matches(parameter: str, entry: Mapping[str, Any], tensor: str) -> bool:
  """Returns whether a condition holds for a tensor."""
  if 'regex' not in entry:
    wanted = entry.get('filter')
    return wanted in (None, '*') or str(wanted) in tensor
  try:
    return bool(tree.compiled(str(entry['regex'])).search(tensor))
  except ValueError as error:
    raise ValueError(f'{parameter}: {error}') from None


def _rule(entry: Mapping[str, Any]) -> str:
  """Returns a condition as it is shown; empty if it always holds."""
  if 'regex' in entry:
    return f"regex '{entry['regex']}'"
  wanted = entry.get('filter')
  return '' if wanted in (None, '*') else f"filter '{wanted}'"


def _scalar(parameter: str, value: Any) -> Any:
  """Returns a bool or a finite number; YAML reads 1e-4 as a string."""
  number = value
  if isinstance(value, str):
    try:
      number = float(value)
    except ValueError:
      number = None
  if not isinstance(number, (bool, int, float)) or not math.isfinite(number):
    raise ValueError(f'{parameter}={value!r}: expected a number')
  return number


def _along(values: list[Any], position: float) -> Any:
  """Interpolates numbers linearly at a position; selects one of bools."""
  place = position * (len(values) - 1)
  first = int(place)
  if any(isinstance(x, bool) for x in values):
    return values[first]
  second = min(first + 1, len(values) - 1)
  part = place - first
  return (1 - part) * values[first] + part * values[second]
