"""Suite, codecs and sizes of a run."""

from typing import NamedTuple

import ml_collections

from experiments._run import checks
from experiments._shared import suites

CODECS = (
  'compeft',
  'compeft_mean',
  'skillpack',
  'skillpack_plain',
  'bitstack',
  'svd',
  'tall_masks',
  'emr',
)


class Setting(NamedTuple):
  """Suite and sizes of a run.

  Attributes:
    suite: tasks and model.
    points: for each codec the values of its size, by the name of an argument.
  """

  suite: suites.Suite
  points: dict[str, tuple[float, ...]]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  checks.choices('codecs', config.codecs, CODECS)
  for field in ('densities', 'scales', 'ranks', 'budgets', 'thresholds'):
    if not config[field]:
      raise ValueError(f'{field}: none given')
  checks.sizes({
    'densities': (tuple(config.densities), 1e-4, 1),
    'scales': (tuple(config.scales), 1e-3, None),
    'ranks': (tuple(config.ranks), 1, None),
    'budgets': (tuple(config.budgets), 0, None),
    'thresholds': (tuple(config.thresholds), 0, None),
    'blocks.most': (config.blocks.most, 1, None),
    'blocks.rank': (config.blocks.rank, 1, None),
  })  # fmt: skip
  ranks = tuple(config.ranks)
  densities, budgets = tuple(config.densities), tuple(config.budgets)
  points: dict[str, tuple[float, ...]] = {
    'compeft': densities,
    'compeft_mean': densities,
    'skillpack': ranks,
    'skillpack_plain': ranks,
    'svd': ranks,
    'bitstack': budgets,
    'tall_masks': (0,),
    'emr': (0,),
  }
  return Setting(suites.load(config), points)


def describe(setting: Setting) -> str:
  """Returns suite and codecs in one line."""
  codecs = setting.suite.config.codecs
  points = sum(len(setting.points[codec]) for codec in codecs)
  return (
    f'{suites.describe(setting.suite)}; {len(codecs)} codecs, {points} sizes'
  )
