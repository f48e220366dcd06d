r"""Do experts that arrive one after another merge as well as all at once?

  python -m experiments.continual_merge \
    --config=configs/continual_merge.py:VARIANT

tiny: seconds, a test.

digits: two minutes on two cores. Four tasks made from scikit-learn's digits, as
in merge_vision; five seeds, six orders of arrival. Expect (test % on the tasks
that have arrived; +- over seeds):

  arrived               1            2            3            4
  running mean          97.6 +- 0.4  89.5 +- 0.5  80.1 +- 1.1  73.6 +- 2.0
  exponential mean      97.6 +- 0.4  89.1 +- 0.5  79.5 +- 1.2  73.7 +- 1.7
  variance corrected    97.6 +- 0.4  93.6 +- 0.6  88.3 +- 1.1  84.0 +- 1.7
  OPCM                  97.6 +- 0.4  93.4 +- 0.5  88.8 +- 0.9  84.9 +- 1.3
  sum                   93.0 +- 0.5  91.8 +- 0.4  88.6 +- 1.1  85.4 +- 2.1

OPCM is above all averages in every seed, by 0.9 above the variance-corrected
one, and not above the sum, whose coefficient is chosen with all tasks at hand.

suite8: eight real tasks of 28x28 grey images, three seeds, ten orders, from a
folder of yours: --config.data=FOLDER (see merge_vision).
"""

import ml_collections

from configs import _variants, merge_vision


def digits() -> ml_collections.ConfigDict:
  """Four tasks made from the embedded digits."""
  config = ml_collections.ConfigDict(_variants.suite())
  config.update({
    'tasks': ('upright', 'rotated', 'inverted', 'shuffled'),
    'seeds': 5,
    'seed': 0,
    'orders': 6,  # random orders of arrival, the same for all methods
    # Streams of wsl.merge with their arguments, by name.
    'streams': {
      'opcm': {'stream': 'opcm', 'arguments': {'alpha': 0.5}},
      'mean': {'stream': 'running_mean', 'arguments': {}},
      'mean_with_variance': {
        'stream': 'running_mean',
        'arguments': {'correct_variance': True},
      },
      'exponential_mean': {
        'stream': 'exponential_mean',
        'arguments': {'decay': 0.8},
      },
    },
    # Task arithmetic at the coefficient that is best on validation images once
    # all tasks are there; the other streams have no coefficient.
    'coefs': merge_vision.COEFS,
  })  # fmt: skip
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  small = merge_vision.get_config('tiny')
  for field in ('tasks', 'validation', 'seeds', 'base', 'experts', 'models'):
    config[field] = small[field]
  config.orders, config.coefs = 2, (0.4, 1.0)
  for name in ('mean_with_variance', 'exponential_mean'):
    del config.streams[name]
  return config


def suite8() -> ml_collections.ConfigDict:
  """Eight real tasks, from a folder of the user."""
  config, large = digits(), merge_vision.get_config('suite8')
  for field in ('data', 'tasks', 'validation', 'seeds', 'base', 'experts'):
    config[field] = large[field]
  config.models, config.model, config.at_once = large.models, 'cnn', 1
  config.orders = 10
  # Convolutions as matrices [h * w * in, out].
  config.streams.opcm.arguments.matrices = 'kernel$'
  return config


get_config = _variants.chooser(tiny, digits, suite8)
