"""Why is RegMean further below the experts here than in its publications?

  python -m experiments.regmean_gap --config=configs/regmean_gap.py:VARIANT

tiny: seconds, a test.
"""

import ml_collections

from configs import _variants, merge_vision


def digits() -> ml_collections.ConfigDict:
  """Four tasks made from the embedded digits."""
  config = ml_collections.ConfigDict(_variants.suite())
  config.update({
    'tasks': ('upright', 'rotated', 'inverted', 'shuffled'),
    'seeds': 3,
    # The recipe that the factors change, as in publications: 256 images.
    'recipe': {
      'inputs': 'own',  # or 'merged': RegMean++
      'examples': 256,  # images of each task, without labels
      'shrink': 0.9,
      'leaves': 'all',
      'correlations': 'patch',  # or 'channel'
      'moments': 'kept',  # or 'reset'
      'tasks': 0,  # the first of the suite, 0 for all
    },
    'factors': {
      'inputs': ('merged',),
      'examples': (32, 128, 1024),
      'shrink': (0.0, 0.5, 0.99, 1.0),
      'leaves': ('first', 'last'),
      'moments': ('reset',),
      'tasks': (2,),
    },
    'combined': {'inputs': 'merged', 'examples': 1024, 'shrink': 0.99},
    'coefs': (0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0),
    'statistics': {'examples': 256, 'batch_size': 128},
    'moments': {'passes': 8},
    'depth': {'examples': 200},  # validation images of each task
  })  # fmt: skip
  config.models.mlp.blocks = ('block_0/', 'block_1/', 'block_2/', 'output/')
  config.models.mlp.leaves = {
    'all': 'kernel$',
    'first': 'block_0/dense/kernel$',
    'last': 'output/kernel$',
  }
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  small = merge_vision.get_config('tiny')
  for field in ('tasks', 'validation', 'seeds', 'base', 'experts'):
    config[field] = small[field]
  config.models.mlp.arguments = small.models.mlp.arguments
  config.models.mlp.expert_rate = small.models.mlp.expert_rate
  config.models.mlp.blocks = small.models.mlp.blocks
  config.recipe.examples = config.statistics.batch_size = 32
  config.statistics.examples = 32
  config.factors = {'inputs': ('merged',), 'shrink': (0.0,)}
  config.combined = {'inputs': 'merged', 'shrink': 0.99}
  config.coefs, config.depth.examples = (0.5, 1.0), 32
  return config


def suite8() -> ml_collections.ConfigDict:
  """Eight real tasks, from a folder of the user; a CNN."""
  config, large = digits(), merge_vision.get_config('suite8')
  config.update({
    **_variants.SUITE8,
    'seeds': 2,
    'at_once': 1,
    'experts': large.experts,
    'models': large.models,
    'model': 'cnn',
  })  # fmt: skip
  config.factors.examples = (32, 128, 512, 2048)
  config.factors.tasks = (2, 4)
  config.factors.leaves = ('convolutions', 'dense', 'first_dense', 'last')
  config.factors.correlations = ('channel',)
  config.combined.examples = 2048
  config.models.cnn.leaves = {
    'all': 'kernel$',
    'convolutions': 'conv/kernel$',
    'dense': 'dense/kernel$',
    'first_dense': 'block_3/dense/kernel$',
    'last': 'block_4/dense/kernel$',
  }
  return config


def suite8_vit() -> ml_collections.ConfigDict:
  """Eight real tasks, from a folder of the user; a ViT."""
  config = suite8()
  config.model = 'vit'
  config.factors.leaves = ('attention', 'perceptrons', 'last')
  del config.factors.correlations
  config.models.vit.leaves = {
    'all': 'kernel$',
    'attention': 'attention/.*kernel$',
    'perceptrons': 'mlp/.*kernel$',
    'last': 'output/kernel$',
  }
  return config


get_config = _variants.chooser(tiny, digits, suite8, suite8_vit)
