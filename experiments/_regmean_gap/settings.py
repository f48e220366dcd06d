"""Suite, recipes and factors of a run."""

from typing import Any, NamedTuple

import ml_collections

from experiments._run import checks
from experiments._shared import suites

PEERS = ('mean', 'sum', 'tsv')


class Recipe(NamedTuple):
  """How RegMean is computed.

  Attributes:
    inputs: whose inputs the Gram matrices are of: ``'own'``, those of each
      expert (RegMean), or ``'merged'``, those that the blocks merged before
      give (RegMean++).
    examples: images of each task.
    shrink: alpha, the factor of off-diagonal entries.
    leaves: the leaves that are solved, a name in ``models.MODEL.leaves``; the
      others are averaged.
    correlations: off-diagonal entries of a convolution: ``'patch'``, all; or
      ``'channel'``, those of channels at one position of the patch.
    moments: ``'kept'``, or ``'reset'`` to those of the experts by
      ``align.repair``.
    tasks: how many tasks are merged, the first of the suite; 0 for all.
  """

  inputs: str
  examples: int
  shrink: float
  leaves: str
  correlations: str
  moments: str
  tasks: int


_OPTIONS = {
  'inputs': ('own', 'merged'),
  'correlations': ('patch', 'channel'),
  'moments': ('kept', 'reset'),
}


class Setting(NamedTuple):
  """Suite, recipes and factors of a run.

  Attributes:
    suite: tasks and model.
    coefs: candidates for the coefficient.
    blocks: regular expressions of the leaves of each block.
    leaves: regular expressions by name.
    recipes: by label; ``'reference'`` first, then ``'FACTOR=LEVEL'``, one field
      changed, and ``'combined'``.
  """

  suite: suites.Suite
  coefs: tuple[float, ...]
  blocks: tuple[str, ...]
  leaves: dict[str, str]
  recipes: dict[str, Recipe]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  suite = suites.load(config)
  coefs = tuple(config.coefs)
  if 1.0 not in coefs:
    raise ValueError(f'coefs={coefs}: 1.0 has to be one of them')
  checks.sizes({'moments.passes': (config.moments.passes, 1, None)})
  reference = _recipe({}, config, suite)
  recipes = {'reference': reference}
  for factor, levels in config.factors.items():
    checks.choice('factors', factor, Recipe._fields)
    for level in levels:
      if level != getattr(reference, factor):
        changes = {factor: level}
        recipes[f'{factor}={level}'] = _recipe(changes, config, suite)
  recipes['combined'] = _recipe(dict(config.combined), config, suite)
  model = config.models[config.model]
  blocks, leaves = tuple(model.blocks), dict(model.leaves)
  return Setting(suite, coefs, blocks, leaves, recipes)


def _recipe(
  changes: dict[str, Any],
  config: ml_collections.ConfigDict,
  suite: suites.Suite,
) -> Recipe:
  """Returns the recipe of the config with some fields changed."""
  for field in changes:
    checks.choice('combined', field, Recipe._fields)
  recipe = Recipe(**{**config.recipe, **changes})
  options = {**_OPTIONS, 'leaves': tuple(config.models[config.model].leaves)}
  for field, valid in options.items():
    checks.choice(field, getattr(recipe, field), valid)
  checks.sizes(
    {
      'examples': (recipe.examples, 1, suite.tasks.train.y.shape[1]),
      'shrink': (recipe.shrink, 0, 1),
      'tasks': (recipe.tasks, 0, len(suite.tasks.names)),
    }
  )
  return recipe


def counts(setting: Setting) -> list[int]:
  """Returns the numbers of tasks of all recipes."""
  return sorted({tasks_of(setting, r) for r in setting.recipes.values()})


def tasks_of(setting: Setting, recipe: Recipe) -> int:
  """Returns the number of tasks that a recipe merges."""
  return recipe.tasks or len(setting.suite.tasks.names)


def describe(setting: Setting) -> str:
  """Returns suite and number of recipes in one line."""
  return f'{suites.describe(setting.suite)}; {len(setting.recipes)} recipes'
