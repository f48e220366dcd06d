"""Suite, groups of tasks and budgets of a run."""

import math
from typing import NamedTuple

import ml_collections

from experiments._pareto import searches
from experiments._run import checks
from experiments._shared import suites


class Setting(NamedTuple):
  """Suite and groups of tasks of a run.

  Attributes:
    suite: tasks and model.
    groups: positions of the tasks of each group, by its name.
    budgets: numbers of evaluations.
  """

  suite: suites.Suite
  groups: dict[str, tuple[int, ...]]
  budgets: tuple[int, ...]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  suite = suites.load(config)
  checks.choices('methods', config.methods, searches.METHODS)
  budgets = tuple(config.budgets)
  start, batch = searches.START, searches.BATCH
  if not budgets or any(n < start or n % batch for n in budgets):
    raise ValueError(
      f'budgets={budgets}: expected multiples of {batch} from {start}'
    )
  if list(budgets) != sorted(set(budgets)):
    raise ValueError(f'budgets={budgets}: expected rising numbers')
  names = suite.tasks.names
  groups = {}
  for group in config.groups:
    checks.choices('groups', group, names)
    if not 2 <= len(set(group)) == len(group) <= 4:
      raise ValueError(f'groups: {group}: expected 2 to 4 different tasks')
    groups[' + '.join(group)] = tuple(names.index(name) for name in group)
  if not groups:
    raise ValueError('groups: none given')
  largest = max(map(len, groups.values()))
  checks.sizes({'exhaustive': (config.exhaustive, 2**largest, None)})
  if largest > 2:
    # A surrogate of T coefficients, and a pair of each nested step.
    least = max(
      math.ceil(1.5 * math.comb(largest + 2, 2)), largest + 7 * (largest - 1)
    )
    checks.sizes({'budgets': (budgets[-1], least, None)})
  return Setting(suite, groups, budgets)


def describe(setting: Setting) -> str:
  """Returns suite, groups and budgets in one line."""
  return (
    f'{suites.describe(setting.suite)}; {len(setting.groups)} groups, up to '
    f'{setting.budgets[-1]} evaluations'
  )
