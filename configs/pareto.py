"""How good is the Pareto front of merges after how few evaluations?

  python -m experiments.pareto --config=configs/pareto.py:VARIANT

tiny: seconds, a test.

digits: half an hour on shared cores. Two pairs and all four of the tasks of
merge_vision, five seeds. Expect (hypervolume after 30 evaluations, % of that of
a grid of 2401, +- over seeds):

                         upright + rotated  inverted + shuffled  all four
  random search          95.2 +- 0.4        96.5 +- 0.6          54.4 +- 7.6
  MAP                    98.0 +- 0.8        98.8 +- 0.5          65.5 +- 9.0
  MM-MO                  97.8 +- 0.6        98.3 +- 0.7          68.3 +- 6.8
  EHVI                   98.4 +- 0.8        98.7 +- 0.7          79.7 +- 5.1
  MM-MO on DARE-TIES     92.5 +- 7.3        96.2 +- 3.3          24.2 +- 13.6

EHVI is MM-MO without mutants and screening.
"""

import ml_collections

from configs import _variants, merge_vision


def digits() -> ml_collections.ConfigDict:
  """Two pairs and all four of the tasks made from the embedded digits."""
  config = ml_collections.ConfigDict(_variants.suite())
  config.update({
    'tasks': ('upright', 'rotated', 'inverted', 'shuffled'),
    'seeds': 5,
    'seed': 0,  # of the searches
    # Tasks whose errors are traded against each other.
    'groups': (
      ('upright', 'rotated'),
      ('inverted', 'shuffled'),
      ('upright', 'rotated', 'inverted', 'shuffled'),
    ),
    'methods': (
      *('random', 'map', 'map_adaptive', 'mm_mo', 'no_mutants'),
      *('no_screening', 'ehvi', 'own_reference', 'mm_mo_dare_ties'),
    ),
    'budgets': (10, 15, 20, 25, 30),  # evaluations; the paper of MM-MO has 30
    'exhaustive': 2401,  # points of the grid, at most
  })  # fmt: skip
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  small = merge_vision.get_config('tiny')
  for field in ('tasks', 'validation', 'seeds', 'base', 'experts', 'models'):
    config[field] = small[field]
  config.update({
    'seeds': 1, 'groups': (('upright', 'inverted'),),
    'methods': ('random', 'map', 'mm_mo'), 'budgets': (10, 15),
    'exhaustive': 25,
  })  # fmt: skip
  return config


get_config = _variants.chooser(tiny, digits)
