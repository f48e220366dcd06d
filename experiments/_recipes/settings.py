"""Suite and recipes of a run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from experiments._run import checks
from experiments._shared import merge_methods, suites
from wsl import types

SEARCHES = ('random', 'cmaes', 'grid')
COEF = 'coef'


class Recipe(NamedTuple):
  """A chain of functions and the box of its numbers.

  Attributes:
    name: in the config.
    method: the functions, with all arguments that are not searched.
    places: of the numbers: ``(function, argument)``, or ``(COEF,)``.
    counts: of the numbers at each place; None for one that is no vector.
    lower: of the box, ``[n]``.
    upper: of the box, ``[n]``.
  """

  name: str
  method: merge_methods.Method
  places: tuple[tuple[str, ...], ...]
  counts: tuple[int | None, ...]
  lower: np.ndarray
  upper: np.ndarray

  def fill(
    self, point: types.Array | np.ndarray
  ) -> tuple[dict[str, dict[str, Any]], Any]:
    """Returns the arguments and the coefficient at a point, ``[n]``."""
    arguments = {k: dict(v) for k, v in self.method.candidates[0].items()}
    coef: Any = 1.0
    at = 0
    for place, count in zip(self.places, self.counts):
      value = point[at] if count is None else point[at : at + count]
      at += 1 if count is None else count
      if place == (COEF,):
        coef = value
      else:
        function, argument = place
        arguments.setdefault(function, {})[argument] = value
    return arguments, coef

  def labels(self) -> list[str]:
    """Returns a name for each of the n numbers."""
    found = []
    for place, count in zip(self.places, self.counts):
      name = '.'.join(place)
      several = [f'{name}[{i}]' for i in range(count or 0)]
      found += several if count is not None else [name]
    return found


class Setting(NamedTuple):
  """Suite and recipes of a run.

  Attributes:
    suite: tasks and model.
    recipes: by name, from the fewest numbers to the most.
  """

  suite: suites.Suite
  recipes: dict[str, Recipe]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  suite = suites.load(config)
  checks.choices('searches', config.searches, SEARCHES)
  checks.sizes(
    {
      'batch': (config.batch, 2, config.evaluations),
      'points': (config.points, 1, config.evaluations),
    }
  )
  if not config.recipes:
    raise ValueError('recipes: none given')
  recipes = {}
  for name, entry in config.recipes.items():
    try:
      recipes[name] = _recipe(suite, name, entry)
    except ValueError as error:
      raise ValueError(f'recipes.{name}: {error}') from None
  # A config has no order: from the fewest numbers to the most.
  ordered = sorted(recipes.items(), key=lambda item: len(item[1].lower))
  return Setting(suite, dict(ordered))


def _recipe(
  suite: suites.Suite, name: str, entry: ml_collections.ConfigDict
) -> Recipe:
  """Reads one recipe, and traces it at both ends of its box."""
  config = suite.config
  order = lambda item: (item[0] == COEF, item[0])  # the coefficient is last
  numbers = dict(sorted(entry.numbers.items(), key=order))
  places, counts, lower, upper = [], [], [], []
  for label, span in numbers.items():
    place = tuple(label.split('/'))
    if len(place) > 2 or (len(place) == 1 and label != COEF):
      raise ValueError(
        f"numbers: '{label}' is neither '{COEF}' nor 'FUNCTION/ARGUMENT'"
      )
    if len(span) not in (2, 3) or not span[0] < span[1]:
      raise ValueError(
        f'numbers.{label}={tuple(span)}: expected (low, high), or (low, high, '
        'count) for a vector'
      )
    count = int(span[2]) if len(span) == 3 else None
    places.append(place)
    counts.append(count)
    lower += [float(span[0])] * (count or 1)
    upper += [float(span[1])] * (count or 1)
  if not numbers:
    raise ValueError('numbers: none given')
  if 'grid' in config.searches and 2 ** len(lower) > config.evaluations:
    raise ValueError(
      f'a grid of {len(lower)} numbers has at least {2 ** len(lower)} points, '
      f'evaluations={config.evaluations}'
    )
  steps = entry.steps.split('+')
  for place in places:
    if place != (COEF,) and place[0] not in steps:
      raise ValueError(f"numbers: '{place[0]}' is not a step of {entry.steps}")
  unfilled = Recipe(
    name,
    merge_methods.Method(entry.steps, (), ({},), (1.0,), (), 'none'),
    tuple(places),
    tuple(counts),
    np.asarray(lower),
    np.asarray(upper),
  )
  fixed: dict[str, Any] = dict(entry.get('arguments', {}))
  methods = [
    _parse(entry.steps, fixed, unfilled.fill(end)[0])
    for end in (unfilled.lower, unfilled.upper)
  ]
  for method in methods:
    _check(suite, method)
  return unfilled._replace(method=methods[0])


def _parse(
  steps: str, fixed: Mapping[str, Any], searched: Mapping[str, Any]
) -> merge_methods.Method:
  """Returns the chain of functions with all arguments at one point."""
  arguments = {
    name: {**fixed.get(name, {}), **searched.get(name, {})}
    for name in {**fixed, **searched}
  }
  (method,) = merge_methods.parse([steps], arguments, {'default': (1.0,)})
  if method.data != 'none':
    raise ValueError(f"'{steps}' reads images, only merges of models can be")
  return method


def _check(suite: suites.Suite, method: merge_methods.Method) -> None:
  """Traces a method on shapes, so that errors precede the training."""
  supplied = {'key': jax.eval_shape(jax.random.key, 0)}
  encoder = suites.shapes(suite)['encoder']
  merge_methods.check(method, encoder, len(suite.tasks.names), supplied)


def describe(setting: Setting) -> str:
  """Returns suite, recipes and evaluations in one line."""
  config = setting.suite.config
  sizes = ', '.join(
    f'{name} of {len(recipe.lower)}' for name, recipe in setting.recipes.items()
  )
  return (
    f'{suites.describe(setting.suite)}; recipes by their numbers: {sizes}; '
    f'{config.evaluations} evaluations of each search and seed'
  )
