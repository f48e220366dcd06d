"""Which search finds the best recipe of a merge with few evaluations?

  python -m experiments.recipes --config=configs/recipes.py:VARIANT

tiny: seconds, a test.

digits: six minutes on two cores. Four tasks made from scikit-learn's digits, as
in merge_vision; five seeds. Expect (test % of the best point, +- over seeds):

                        numbers  random       CMA-ES       grid
  sum                   1        85.1 +- 2.0  85.1 +- 2.0  85.2 +- 2.0
  TIES                  2        79.8 +- 3.3  80.5 +- 3.2  80.2 +- 3.4
  DARE, TIES            3        80.0 +- 3.2  80.1 +- 3.9  79.5 +- 3.8
  by task               8        80.6 +- 3.4  85.1 +- 3.1  58.9 +- 2.0

suite8: eight real tasks of 28x28 grey images, three seeds, from a folder of
yours: --config.data=FOLDER (see merge_vision). Not run yet.
"""

import ml_collections

from configs import _variants, merge_vision

_TIES = 'trim+elect_sign+mean_nonzero'


def digits() -> ml_collections.ConfigDict:
  """Four tasks made from the embedded digits."""
  config = ml_collections.ConfigDict(_variants.suite())
  config.update({
    'tasks': ('upright', 'rotated', 'inverted', 'shuffled'),
    'seeds': 5,
    'merge_seed': 0,  # of random masks
    'seed': 0,  # of the searches
    'searches': ('random', 'cmaes', 'grid'),
    'evaluations': 256,  # of each search, on validation images
    'batch': 16,  # points in one compiled call; the population of CMA-ES
    'points': 32,  # of the curves, equally spaced
    # Chains of functions, and boxes (low, high) of their numbers; (low, high,
    # T) for one number of each task.
    'recipes': {
      'sum': {'steps': 'sum', 'numbers': {'coef': (0.0, 2.0)}},
      'ties': {
        'steps': _TIES,
        'numbers': {'trim/density': (0.02, 1.0), 'coef': (0.0, 3.0)},
      },
      'dare_ties': {
        'steps': f'dare+{_TIES}',
        'numbers': {
          'dare/rate': (0.0, 0.95),
          'trim/density': (0.02, 1.0),
          'coef': (0.0, 3.0),
        },
      },
      'by_task': {
        'steps': 'trim+sum',
        'numbers': {
          'trim/density': (0.02, 1.0, 4),
          'sum/weights': (0.0, 2.0, 4),
        },
      },
    },
  })  # fmt: skip
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  small = merge_vision.get_config('tiny')
  for field in ('tasks', 'validation', 'seeds', 'base', 'experts', 'models'):
    config[field] = small[field]
  config.update({'evaluations': 16, 'batch': 8, 'points': 2})
  for name in ('sum', 'dare_ties', 'by_task'):
    del config.recipes[name]
  return config


def suite8() -> ml_collections.ConfigDict:
  """Eight real tasks, from a folder of the user."""
  config, large = digits(), merge_vision.get_config('suite8')
  for field in ('data', 'tasks', 'validation', 'seeds', 'base', 'experts'):
    config[field] = large[field]
  config.models, config.model, config.at_once = large.models, 'cnn', 1
  numbers = {'trim/density': (0.02, 1.0, 8), 'sum/weights': (0.0, 2.0, 8)}
  config.recipes.by_task.numbers = numbers
  config.searches = ('random', 'cmaes')
  return config


get_config = _variants.chooser(tiny, digits, suite8)
