"""The parameters of a recipe: which tensors each value holds for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from wsl import tree
from wsl.recipes import _recipe, _settings
from wsl.recipes._method import arguments, methods


class Value(NamedTuple):
  """A value that a recipe sets for one tensor.

  Attributes:
    parameter: its name.
    model: the input that it holds for, or None for all.
    rule: the condition under which it holds, such as ``filter 'mlp'``, or
      empty.
    value: a number, a bool or a name.
  """

  parameter: str
  model: _recipe.Model | None
  rule: str
  value: Any

  @property
  def label(self) -> str:
    """The parameter, and the input if it has a value of its own."""
    return self.parameter + ('' if self.model is None else f' of {self.model}')


def describe_parameters(values: Mapping[str, Sequence[Value]]) -> list[str]:
  """Returns a line for each parameter: its values, and how many tensors.

  Args:
    values: ``Merged.parameters``.

  Returns:
    The lines, in the order of the parameters.

  Example:
    >>> found = {'a': [Value('t', None, "filter 'a'", 0.5)],
    ...          'b': [Value('t', None, '', 0.2)]}
    >>> describe_parameters(found)
    ["t: 0.5 in 1 tensor (filter 'a'), 0.2 in 1 tensor"]
  """
  found: dict[str, dict[str, list[Any]]] = {}
  for one in values.values():
    for value in one:
      rules = found.setdefault(value.label, {})
      rules.setdefault(value.rule, []).append(value.value)
  return [
    f'{label}: ' + ', '.join(_range(rule, x) for rule, x in rules.items())
    for label, rules in found.items()
  ]


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
