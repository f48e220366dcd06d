"""How many bits does a task vector need?

  python -m experiments.compress --config=configs/compress.py:VARIANT

tiny: seconds, a test.

digits: ten minutes on two shared cores. Four tasks made from the embedded
digits, as in merge_vision, an MLP 64-256-256-256-256, three seeds. Expect (bits
an entry, test %, +- over seeds; all sizes: README):

  ComPEFT at 20 %     0.95  95.8 +- 0.3    at 50 %   1.51  97.4 +- 0.9
  SkillPack, rank 16  0.85  97.3 +- 0.2    rank 32   1.14  97.6 +- 0.1
  BitStack            1.65  96.8 +- 0.3              3.29  97.6 +- 0.1
  SVD in float16      1.48  96.1 +- 0.0              2.59  97.5 +- 0.1
  TALL masks          9.00  97.0 +- 0.1    EMR       9.00  97.2 +- 0.4
  experts 97.8 +- 0.1, base 61.5 +- 1.3

suite8: eight real tasks of 28x28 grey images and the CNN of merge_vision, from
a folder of yours: --config.data=FOLDER; three seeds.
"""

import ml_collections

from configs import _variants, merge_vision


def digits() -> ml_collections.ConfigDict:
  """Four tasks made from the embedded digits."""
  config = ml_collections.ConfigDict(_variants.suite())
  config.models.mlp.arguments.widths = (256, 256, 256)
  config.models.mlp.arguments.outputs = 256
  config.update({
    'tasks': ('upright', 'rotated', 'inverted', 'shuffled'),
    'seeds': 3,
    'statistics': {'examples': 256},  # unlabelled images of each task
    'codecs': (
      *('compeft', 'compeft_mean', 'skillpack', 'skillpack_plain'),
      *('bitstack', 'svd', 'tall_masks', 'emr'),
    ),
    'densities': (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),  # of ComPEFT
    'scales': (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0),  # of ComPEFT
    'ranks': (2, 4, 8, 16, 32, 64, 128),  # of SkillPack and of the SVD
    # Singular vectors and their bits; 0 vectors are all others.
    'bits': ((2, 8), (8, 3), (0, 2)),
    'blocks': {'most': 6, 'rank': 2},  # of BitStack
    'budgets': (0.25, 0.5, 1.0, 1.5, 3.0, 6.0),  # of BitStack, bits an entry
    'thresholds': (0.2, 0.3, 0.4, 0.5, 0.6),  # of TALL masks
  })  # fmt: skip
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  small = merge_vision.get_config('tiny')
  for field in ('tasks', 'validation', 'seeds', 'base', 'experts', 'models'):
    config[field] = small[field]
  config.statistics.examples = 32
  config.update({
    'codecs': ('compeft', 'skillpack', 'bitstack', 'svd', 'tall_masks'),
    'seeds': 1, 'densities': (0.05, 0.2), 'scales': (1.0, 3.0),
    'ranks': (4, 8), 'blocks': {'most': 2, 'rank': 1},
    'budgets': (1.0, 5.0), 'thresholds': (0.2, 0.5),
  })  # fmt: skip
  return config


def suite8() -> ml_collections.ConfigDict:
  """Eight real tasks, from a folder of the user."""
  config, large = digits(), merge_vision.get_config('suite8')
  config.update(_variants.SUITE8)
  for field in ('at_once', 'model', 'experts', 'models'):
    config[field] = large[field]
  config.statistics.examples = 128
  return config


get_config = _variants.chooser(tiny, digits, suite8)
