"""The parameters of a recipe: which tensors each value holds for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from wsl import tree
from wsl.recipes import _recipe, _settings
from wsl.recipes._method import arguments, methods

_MOST_NAMES = 4  # of inputs in a label


class Value(NamedTuple):
  """A value that a recipe sets for one tensor.

  Attributes:
    parameter: its name.
    model: the input that it holds for, or None for all.
    rule: the condition under which it holds, such as ``filter 'mlp'``, or
      empty.
    value: a number or a bool.
  """

  parameter: str
  model: _recipe.Model | None
  rule: str
  value: Any


def group_parameters(
  values: Mapping[str, Sequence[Value]],
) -> dict[str, dict[str, Value]]:
  """Groups the values of parameters; inputs with equal ones are one group.

  Args:
    values: ``Merged.parameters``.

  Returns:
    By parameter and inputs, such as ``'weight of a, b'``, the value for each
    tensor.

  Example:
    >>> a, b = (_recipe.Model(name) for name in 'ab')
    >>> found = {'w': [Value('weight', model, '', 0.5) for model in (a, b)]}
    >>> list(group_parameters(found))
    ['weight of a, b']
  """
  found: dict[tuple[str, _recipe.Model | None], dict[str, Value]] = {}
  for tensor, own in values.items():
    for value in own:
      key = value.parameter, value.model
      found.setdefault(key, {})[tensor] = value
  # Inputs are grouped whose values are equal in all tensors.
  groups: dict[Any, list[tuple[str, _recipe.Model | None]]] = {}
  for key, by_tensor in found.items():
    equal = tuple((t, v.rule, v.value) for t, v in by_tensor.items())
    groups.setdefault((key[0], equal), []).append(key)
  return {
    _label(parameter, [model for _, model in keys]): found[keys[0]]
    for (parameter, _), keys in groups.items()
  }


def _label(parameter: str, models: Sequence[_recipe.Model | None]) -> str:
  """Returns a parameter with the inputs that its values hold for."""
  if models[0] is None:
    return parameter
  if len(models) > _MOST_NAMES:
    return f'{parameter} of {len(models)} inputs'
  return f'{parameter} of {", ".join(map(str, models))}'


def describe_parameters(values: Mapping[str, Sequence[Value]]) -> list[str]:
  """Returns a line for each parameter: its values, and how many tensors.

  Args:
    values: ``Merged.parameters``.

  Returns:
    The lines, in the order of the parameters; inputs with equal values share
    one.

  Example:
    >>> found = {'a': [Value('t', None, "filter 'a'", 0.5)],
    ...          'b': [Value('t', None, '', 0.2)]}
    >>> describe_parameters(found)
    ["t: 0.5 in 1 tensor (filter 'a'), 0.2 in 1 tensor"]
  """
  lines = []
  for label, by_tensor in group_parameters(values).items():
    rules: dict[str, list[Any]] = {}
    for value in by_tensor.values():
      rules.setdefault(value.rule, []).append(value.value)
    ranges = ', '.join(_range(rule, x) for rule, x in rules.items())
    lines.append(f'{label}: {ranges}')
  return lines


def _range(rule: str, values: Sequence[Any]) -> str:
  """Describes the values of one rule."""
  different = sorted(set(values), key=lambda x: (str(type(x)), x))
  ends = dict.fromkeys((different[0], different[-1]))
  shown = ' .. '.join(
    f'{x:.4g}' if isinstance(x, float) else str(x) for x in ends
  )
  unit = 'tensor' if len(values) == 1 else 'tensors'
  return f'{shown} in {len(values)} {unit}' + (f' ({rule})' if rule else '')


def unused(recipe: _recipe.Recipe, method: arguments.Method) -> list[str]:
  """Returns a note on each parameter that the method does not have.

  Raises:
    ValueError: if no method has it.
  """
  known = sorted(methods.known_parameters())
  given = dict.fromkeys(name for level in _levels(recipe) for name in level)
  for name in given:
    if name not in known:
      hint = tree.nearest(name, known)
      raise ValueError(f"parameters: no method has '{name}'{hint}")
  used = (*method.shared, *method.each)
  return [
    f"parameter '{name}' has no effect in {recipe.method}"
    for name in given
    if name not in used
  ]


def unmatched(
  recipe: _recipe.Recipe,
  method: arguments.Method,
  values: Mapping[str, Sequence[Value]],
) -> list[str]:
  """Returns a note on each filter that selects no tensor.

  Raises:
    ValueError: if a regular expression selects none.
  """
  seen = {(v.parameter, v.rule) for one in values.values() for v in one}
  notes = []
  for level in _levels(recipe):
    for name, setting in level.items():
      if name not in (*method.shared, *method.each):
        continue
      for rule in _settings.rules(setting):
        if (name, rule) not in seen:
          text = f'{name}: {rule} selects no tensor'
          if rule.startswith('regex'):
            raise ValueError(f'{text} that an earlier condition leaves')
          notes.append(text)
  return notes


def _levels(recipe: _recipe.Recipe) -> Iterator[Mapping[str, Any]]:
  """Yields the parameters of the recipe and of all its parts."""
  yield recipe.parameters
  for module in recipe.modules:
    yield module.parameters
    for part in module.slices:
      yield part.parameters
      for source in part.sources:
        yield source.parameters
