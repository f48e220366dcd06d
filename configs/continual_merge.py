r"""Do experts that arrive one after another merge as well as all at once?

  python -m experiments.continual_merge \
    --config=configs/continual_merge.py:VARIANT

tiny: seconds, a test.

digits: four tasks made from scikit-learn's digits, as in merge_vision; five
seeds, six orders of arrival.

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
