"""The merged model of a recipe, leaf by leaf on demand."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wsl import tree, types
from wsl.recipes import (
  _folder,
  _outputs,
  _parameters,
  _recipe,
  _resolved,
  _tensors,
)
from wsl.recipes._method import arguments, methods
from wsl.recipes._vocabulary import rows, tokens


class Inputs(NamedTuple):
  """What a tensor is merged from.

  Attributes:
    base_model: the model with the role of a base, or None.
    base: its tensor, or None.
    models: the tensors of the other models, by reference.
  """

  base_model: _recipe.Model | None
  base: Any
  models: dict[_recipe.Model, Any]


class Merged(NamedTuple):
  """A merged model.

  Attributes:
    params: the tensors by name, on demand.
    notes: one line on each decision that the recipe did not state.
    vocabulary: that of the output, if the recipe asks for one.
    parameters: by tensor, the values that the recipe sets for it.
    inputs: by tensor, what it is merged from, if it is no copy.
  """

  params: dict[str, Any]
  notes: list[str]
  vocabulary: tokens.Vocabulary | None
  parameters: dict[str, list[_parameters.Value]]
  inputs: dict[str, Inputs]


def build(
  recipe: _recipe.Recipe,
  folders: Mapping[_recipe.Model, _folder.Folder],
  *,
  key: types.PRNGKey | None = None,
  unmatched: str = 'error',
) -> Merged:
  """Returns the merged model; nothing is computed before it is read.

  Args:
    recipe: the recipe.
    folders: its models, by reference.
    key: for methods that draw random numbers.
    unmatched: what becomes of a tensor that some inputs do not have:
      ``'error'``, ``'copy'`` (from the base, or the first input that has it) or
      ``'drop'``.

  Returns:
    The model, and notes.

  Raises:
    ValueError: naming the parameter, model or tensor that does not fit.

  Example:
    >>> import pathlib
    >>> import numpy as np
    >>> from wsl import recipes
    >>> recipe = recipes.parse({
    ...   'merge_method': 'linear',
    ...   'models': [{'model': 'a'}, {'model': 'b'}],
    ...   'parameters': {'weight': 1}})
    >>> folders = {}
    >>> for name, x in {'a': 1.0, 'b': 3.0}.items():
    ...   params = {'head': np.asarray([x]), 'body': np.asarray([x])}
    ...   model = recipes.Model(name)
    ...   folders[model] = recipes.Folder(pathlib.Path(name), params, None)
    >>> build(recipe, folders).params['body'].tolist()
    [2.0]
  """
  method = methods.find(recipe.method)
  notes = _parameters.unused(recipe, method)
  names = {model: folder.params for model, folder in folders.items()}
  configs = {model: folder.config for model, folder in folders.items()}
  vocabulary = tokens.read(recipe, folders)
  notes += vocabulary.notes if vocabulary else []
  groups: dict[_resolved.Resolved, dict[str, Inputs]] = {}
  merged: dict[str, Any] = {}
  values: dict[str, list[_parameters.Value]] = {}
  aligned: list[str] = []
  for output in _outputs.outputs(recipe, names, configs):
    leaves = _tensors.inputs(output, folders, unmatched, notes)
    if not leaves:
      continue
    merged[output.name] = leaves[0]  # keeps the order
    if len(leaves) < len(output.inputs):
      merged[output.name] = _tensors.cast(leaves[0], recipe)
    elif not tree.is_float(leaves[0]):
      _tensors.check_same(output, leaves)
    else:
      leaves = _tensors.one_dtype(leaves, recipe.dtype)
      models = [model for model, _ in output.inputs]
      if vocabulary and rows.is_indexed(
        vocabulary, output.name, models, leaves
      ):
        leaves = rows.align(recipe, vocabulary, models, leaves)
        aligned.append(output.name)
      _tensors.check_shapes(output, leaves)
      resolved, values[output.name] = _resolved.of(recipe, method, output)
      groups.setdefault(resolved, {})[output.name] = _roles(
        method, resolved, leaves
      )
  rows.check_any(vocabulary, aligned)
  for resolved, tensors in groups.items():
    merged |= _merge(recipe, method, resolved, tensors, key)
  notes += _parameters.unmatched(recipe, method, values)
  found = {name: x for inputs in groups.values() for name, x in inputs.items()}
  return Merged(merged, notes, vocabulary, values, found)


def _roles(
  method: arguments.Method, resolved: _resolved.Resolved, leaves: Sequence[Any]
) -> Inputs:
  """Separates the tensor of the base from the others, if it has a role."""
  models = dict(zip(resolved.models, leaves))
  if resolved.base is None or method.base == 'input':
    return Inputs(None, None, models)
  return Inputs(resolved.base, models.pop(resolved.base), models)


def _merge(
  recipe: _recipe.Recipe,
  method: arguments.Method,
  resolved: _resolved.Resolved,
  tensors: Mapping[str, Inputs],
  key: types.PRNGKey | None,
) -> dict[str, Any]:
  """Merges the tensors that share base, models and parameters."""
  first = next(iter(tensors.values()))
  base = None
  if first.base_model is not None:
    base = {name: inputs.base for name, inputs in tensors.items()}
  models = [
    {name: inputs.models[model] for name, inputs in tensors.items()}
    for model in first.models
  ]
  given = arguments.Arguments(dict(resolved.shared), dict(resolved.each), key)
  try:
    result = method.merge(base, models, given)
  except ValueError as error:
    prefix = f'{recipe.method}: '
    text = str(error).removeprefix(prefix)
    raise ValueError(f'{prefix}{text}') from None
  return {name: _tensors.cast(x, recipe) for name, x in result.items()}
