"""The base, the models and the parameters by which a tensor is merged."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from wsl.recipes import _outputs, _parameters, _recipe, _settings
from wsl.recipes._method import arguments


class Resolved(NamedTuple):
  """What tensors must share to be merged by one call; hashable.

  Attributes:
    base: the model with the role of a base, or None.
    models: the inputs, the base among them.
    shared: the parameters that all models share, by name.
    each: by name, the parameters of each model.
  """

  base: _recipe.Model | None
  models: tuple[_recipe.Model, ...]
  shared: tuple[tuple[str, Any], ...]
  each: tuple[tuple[str, tuple[Any, ...]], ...]


def of(
  recipe: _recipe.Recipe, method: arguments.Method, output: _outputs.Output
) -> tuple[Resolved, list[_parameters.Value]]:
  """Returns the values of all parameters for one tensor, and those set."""
  part, module = output.part, output.module
  base = part.base or recipe.base
  models = tuple(model for model, _ in output.inputs)
  _check_inputs(recipe.method, method, base, models)
  outer = [part.parameters, module.parameters, recipe.parameters]
  found: list[_parameters.Value] = []

  def value(
    name: str, default: Any, tensor: str, model: _recipe.Model | None = None
  ) -> Any:
    levels = outer if model is None else [*_own(part, model), *outer]
    setting = _settings.resolve(
      name, levels, tensor=tensor, position=output.position
    )
    if setting is None:
      return _default(name, default, tensor, model)
    found.append(_parameters.Value(name, model, setting.rule, setting.value))
    return setting.value

  shared = {
    name: value(name, default, output.name)
    for name, default in method.shared.items()
  }
  each = {
    name: tuple(
      value(name, default, tensor, model)
      for model, tensor in output.inputs
      if method.base == 'input' or model != base
    )
    for name, default in method.each.items()
  }
  resolved = Resolved(
    base, models, tuple(sorted(shared.items())), tuple(sorted(each.items()))
  )
  return resolved, found


def _own(
  part: _recipe.Slice, model: _recipe.Model
) -> Iterable[Mapping[str, Any]]:
  """Yields the parameters that a slice sets for one of its models."""
  return (s.parameters for s in part.sources if s.model == model)


def _default(
  name: str, default: Any, tensor: str, model: _recipe.Model | None
) -> Any:
  """Returns the default of a parameter that the recipe does not set."""
  if default is arguments.NEEDED:
    of = '' if model is None else f' of {model}'
    raise ValueError(
      f"parameters: '{name}'{of} is not set for tensor '{tensor}': set it, or "
      'add a value without a filter'
    )
  return default


def _check_inputs(
  label: str,
  method: arguments.Method,
  base: _recipe.Model | None,
  models: Sequence[_recipe.Model],
) -> None:
  """Checks the base and the number of inputs of a method."""
  if len(set(models)) < len(models):
    twice = next(m for m in models if models.count(m) > 1)
    raise ValueError(f'{label}: {twice} is an input twice: name it once')
  has_role = method.base == 'needed' or (method.base == 'optional' and base)
  if has_role and base not in models:
    raise ValueError(f'{label} needs a base among its inputs: set base_model')
  least, most = method.inputs
  if not least <= len(models) <= (most or len(models)):
    wanted = str(least) if least == most else f'{least} .. {most or "any"}'
    raise ValueError(f'{label} merges {wanted} inputs, found {len(models)}')
