"""The value of a parameter for one tensor: filters, gradients, precedence.

A setting is a number (or a bool, or a name); a gradient, a list of them over
the layers of a slice; or a list of ``{filter, value}``, of which the first
whose filter is a substring of the tensor's name is taken. Where none is, the
next level of the recipe decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def resolve(
  parameter: str,
  levels: Sequence[Mapping[str, Any]],
  *,
  tensor: str,
  position: float,
) -> Any:
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
    0.25
    >>> resolve('t', levels, tensor='0.attn.w', position=0.25)
    0.5
  """
  for level in levels:
    if parameter in level:
      found = _value(parameter, level[parameter], tensor, position)
      if found is not None:
        return found
  return None


def _value(parameter: str, setting: Any, tensor: str, position: float) -> Any:
  """Returns the value of one setting, or None if no filter of it matches."""
  if isinstance(setting, Mapping):
    setting = [setting]
  if not isinstance(setting, list):
    return _scalar(parameter, setting)
  conditions = [isinstance(entry, Mapping) for entry in setting]
  if not any(conditions):
    values = [_scalar(parameter, entry) for entry in setting]
    return _along(values, position) if values else None
  if not all(conditions):
    raise ValueError(
      f'{parameter}={setting!r}: mixes values with conditions: give '
      '{value: ...} for the value without a filter'
    )
  for entry in setting:
    if 'value' not in entry or set(entry) - {'value', 'filter'}:
      raise ValueError(f'{parameter}: {entry!r}: expected value and filter')
    wanted = entry.get('filter')
    if wanted in (None, '*') or str(wanted) in tensor:
      return _value(parameter, entry['value'], tensor, position)
  return None


def _scalar(parameter: str, value: Any) -> Any:
  """Returns a bool, a number, or a name; YAML reads 1e-4 as a string."""
  if isinstance(value, str):
    try:
      return float(value)
    except ValueError:
      return value
  if not isinstance(value, (bool, int, float)):
    raise ValueError(f'{parameter}={value!r}: expected a number')
  return value


def _along(values: list[Any], position: float) -> Any:
  """Interpolates numbers linearly at a position; selects other values."""
  place = position * (len(values) - 1)
  first = int(place)
  if any(isinstance(x, (bool, str)) for x in values):
    return values[first]
  second = min(first + 1, len(values) - 1)
  part = place - first
  return (1 - part) * values[first] + part * values[second]
