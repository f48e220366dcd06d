"""The tensors of the output, and the inputs that each is merged from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wsl import tree
from wsl.recipes import _layers, _recipe

Names = Mapping[str, Any]  # the tensors of a model, by name
Configs = Mapping[_recipe.Model, Mapping[str, Any] | None]


class Output(NamedTuple):
  """One tensor of the output.

  Attributes:
    name: in the output.
    inputs: for each source, its model and the tensor's name in it.
    part: the slice that it belongs to; its base and parameters.
    module: the module, whose parameters apply where the slice has none.
    position: of its layer in the slice, 0 .. 1.
  """

  name: str
  inputs: tuple[tuple[_recipe.Model, str], ...]
  part: _recipe.Slice
  module: _recipe.Module
  position: float


def outputs(
  recipe: _recipe.Recipe,
  names: Mapping[_recipe.Model, Names],
  configs: Configs,
) -> list[Output]:
  """Returns the tensors that a recipe makes.

  Args:
    recipe: the recipe.
    names: the tensors of each model, by name.
    configs: the content of config.json of each model, or None.

  Returns:
    The outputs; layers are numbered in the order of the slices.

  Raises:
    ValueError: if a layer or a module does not exist, a model has other layers
      than the first source, or a tensor belongs to no module.
  """
  found: list[Output] = []
  for module in recipe.modules:
    first = module.slices[0].sources[0]
    if first.layers is None:
      found += _whole(recipe, module, names, configs)
    else:
      found += _sliced(module, names, configs)
  _check_covered(recipe, found, names)
  return found


def _whole(
  recipe: _recipe.Recipe,
  module: _recipe.Module,
  names: Mapping[_recipe.Model, Names],
  configs: Configs,
) -> list[Output]:
  """Returns the outputs of ``models``: every tensor, the base's name first."""
  (part,) = module.slices
  if recipe.base and recipe.base not in [s.model for s in part.sources]:
    base = _recipe.Source(recipe.base, None, {})
    part = part._replace(sources=(*part.sources, base))
  leader = recipe.base or part.sources[0].model
  stacks = _layers.stacks(names[leader], configs[leader])
  found = []
  for name in _union([names[s.model] for s in part.sources], names[leader]):
    if not _inside(name, module):
      continue
    place = _layers.place(name)
    position = 0.0
    if place is not None and place.stack in stacks:
      position = _position(place.number, stacks[place.stack])
    inputs = tuple((source.model, name) for source in part.sources)
    found.append(Output(name, inputs, part, module, position))
  return found


def _sliced(
  module: _recipe.Module,
  names: Mapping[_recipe.Model, Names],
  configs: Configs,
) -> list[Output]:
  """Returns the outputs of ``slices``: layers one after the other."""
  first, last = module.slices[0], module.slices[-1]
  leader = first.sources[0].model
  stack = _stack_of(module, names[leader], configs[leader])
  found, offset = [], 0
  for part in module.slices:
    ranges = [s.layers for s in part.sources if s.layers is not None]
    length = ranges[0][1] - ranges[0][0]
    numbered = {s.model: _by_layer(names[s.model], stack) for s in part.sources}
    for i in range(length):
      layers = []
      for source, (start, _) in zip(part.sources, ranges):
        has = numbered[source.model].get(start + i)
        if has is None:
          raise ValueError(
            f"{source.model} has no layer '{stack}{start + i}': it has "
            f'{len(numbered[source.model])} layers'
          )
        layers.append(has)
      for rest in _union(layers, layers[0]):
        for source, has in zip(part.sources, layers):
          if rest not in has:
            raise ValueError(
              f"{source.model} has no tensor '{rest}' in its layer, which "
              'another source has: slices need equal layers'
            )
        name = f'{stack}{offset + i}{rest}'
        inputs = tuple(
          (source.model, has[rest]) for source, has in zip(part.sources, layers)
        )
        position = _position(i, length)
        found.append(Output(name, inputs, part, module, position))
    offset += length
  ends = [*first.sources, *last.sources]
  for name in _union([names[s.model] for s in ends], names[leader]):
    place = _layers.place(name)
    if (place and place.stack == stack) or not _inside(name, module):
      continue
    part = first if _layers.is_before(name) else last
    having = [source for source in part.sources if name in names[source.model]]
    if not having and name not in names[leader]:
      continue
    inputs = tuple((source.model, name) for source in part.sources)
    found.append(Output(name, inputs, part, module, 0.0))
  return found


def _stack_of(
  module: _recipe.Module, names: Names, config: Mapping[str, Any] | None
) -> str:
  """Returns the one stack of layers that slices refer to."""
  inside = [name for name in names if _inside(name, module)]
  stacks = sorted(_layers.stacks(inside, config))
  if len(stacks) != 1:
    found = ', '.join(stacks) or 'none'
    raise ValueError(
      f'slices need one stack of numbered layers, found {found}: name a module '
      'for each'
    )
  return stacks[0]


def _by_layer(names: Names, stack: str) -> dict[int, dict[str, str]]:
  """Returns the tensors of each layer of a stack, by their name in it."""
  found: dict[int, dict[str, str]] = {}
  for name in names:
    place = _layers.place(name)
    if place and place.stack == stack:
      found.setdefault(place.number, {})[place.rest] = name
  return found


def _inside(name: str, module: _recipe.Module) -> bool:
  """Returns whether a tensor belongs to a module."""
  if module.name is None:
    return True
  return name.startswith((f'{module.name}.', f'{module.name}/'))


def _position(index: int, layers: int) -> float:
  """Returns a layer's position, 0 for the first and 1 for the last."""
  return index / (layers - 1) if layers > 1 else 1.0


def _union(models: Sequence[Names], leader: Names) -> list[str]:
  """Returns the names of all models, those of the leader first."""
  names = dict.fromkeys(leader)
  for model in models:
    names |= dict.fromkeys(model)
  return list(names)


def _check_covered(
  recipe: _recipe.Recipe,
  found: Sequence[Output],
  names: Mapping[_recipe.Model, Names],
) -> None:
  """Checks that modules exist, and that each tensor is in one of them."""
  leader = recipe.base or recipe.modules[0].slices[0].sources[0].model
  for module in recipe.modules:
    if module.name and not any(_inside(n, module) for n in names[leader]):
      roots = sorted({name.partition('.')[0] for name in names[leader]})
      hint = tree.nearest(module.name, roots)
      raise ValueError(
        f"modules: {leader} has no part '{module.name}'{hint}: its parts are "
        f'{", ".join(roots)}'
      )
  if len(recipe.modules) > 1:
    outside = [
      name
      for name in names[leader]
      if not any(_inside(name, module) for module in recipe.modules)
    ]
    if outside:
      raise ValueError(
        f"modules: tensor '{outside[0]}' and {len(outside) - 1} others are in "
        'none of them: name a module for each part'
      )
  counts: dict[str, int] = {}
  for output in found:
    counts[output.name] = counts.get(output.name, 0) + 1
  twice = [name for name, count in counts.items() if count > 1]
  if twice:
    raise ValueError(f"modules: tensor '{twice[0]}' is in two of them")
