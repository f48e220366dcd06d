"""Is one nested network as good as a network of each width?

  python -m experiments.nested --config=configs/nested.py:VARIANT

tiny: seconds, a test.

digits: perceptrons of three layers of 64 units on scikit-learn's digits, three
seeds; a minute of processor time. Expect (test accuracy, %, by the fraction of
units; the mean over the 60 mixtures of fractions):

               1           1/2         1/4         1/8         mixtures
  summed       96.4 +- 0.4 95.5 +- 0.4 93.4 +- 0.6 85.4 +- 1.6 78.2 +- 4.1
  sampled      96.6 +- 0.7 94.6 +- 0.3 92.0 +- 0.4 78.8 +- 3.7 77.0 +- 2.5
  mixed        94.7 +- 0.4 93.8 +- 1.0 91.0 +- 1.1 83.1 +- 3.0 91.1 +- 0.2
  separate     97.4 +- 0.6 96.9 +- 0.6 95.3 +- 1.2 88.7 +- 0.7
  unsorted     97.4 +- 0.6 52.7 +- 14  20.0 +- 7.5 11.0 +- 1.4 35.1 +- 5.1
  by weights   97.4 +- 0.6 61.3 +- 16  28.4 +- 12  14.6 +- 3.7 39.2 +- 3.6

summed, sampled, mixed: nested networks of all sizes, a random size, a random
mixture in each step; separate: a network of each size; the others are slices
of an ordinary network.

digits_vit: vision transformers of three blocks, elastic in the hidden units of
their perceptrons; two and a half minutes of processor time. The width hardly
matters: networks of each width have 94.7 to 95.0 %, nested ones 94.1 to 95.7 %,
their mixtures 94.6 to 95.1 %, and an eighth of an ordinary one 77.4 to 80.3 %.

images: wider perceptrons on larger images, from a folder of the user:
--config.data=FOLDER with a task 'fashion' (see wsl.data.folder). Expect, by
size: separate 84.4, 84.1, 82.5, 80.3; summed 83.2, 82.2, 80.0, 76.1, mixtures
70.5 +- 1.7; mixed 80.6, 80.2, 79.4, 75.5, mixtures 79.1 +- 0.4; a half by
activations 67.0 +- 5.1, unsorted 43.2 +- 11.9.
"""

import ml_collections

from configs import _variants


def digits() -> ml_collections.ConfigDict:
  """Perceptrons of three elastic layers on the embedded digits."""
  return ml_collections.ConfigDict({
    'variant': '',
    'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
    'task': 'upright',  # of the digits, or in that folder
    'seeds': 3,
    'seed': 0,
    'model': {
      'module': 'MLP',  # without normalisation of hidden units, or 'ViT'
      'arguments': {'widths': (64, 64, 64), 'norm': False},
    },
    # Regular expressions: the elastic groups, and the maps that read them.
    'groups': '',
    'readers': '(block_[12]/dense|output)/kernel',
    'factors': (1, 2, 4, 8),  # by which hidden units are divided
    # How nested networks are trained, see experiments/_nested/settings.py.
    'kinds': ('summed', 'sampled', 'mixed'),
    'steps': 500,
    'batch_size': 64,
    'learning_rate': 3e-3,
    'held_out': 256,  # training images for the importance of units
  })  # fmt: skip


def digits_vit() -> ml_collections.ConfigDict:
  """Vision transformers, elastic in the hidden units of their blocks."""
  config = digits()
  with config.unlocked():
    config.model = {
      'module': 'ViT',
      'arguments': {
        'patch': 4, 'width': 32, 'depth': 3, 'heads': 4, 'expansion': 4,
        'pool': 'mean',
      },
    }  # fmt: skip
  config.update({'groups': 'mlp', 'readers': 'mlp/down/kernel'})
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.model.arguments.widths = (16, 16)
  config.update({
    'readers': '(block_1/dense|output)/kernel', 'seeds': 1, 'factors': (1, 4),
    'kinds': ('sampled',), 'steps': 60, 'held_out': 64,
  })  # fmt: skip
  return config


def images() -> ml_collections.ConfigDict:
  """Wider perceptrons on larger images, from a folder of the user."""
  config = digits()
  config.data, config.task = 'data', 'fashion'
  config.model.arguments.widths = (128, 128, 128)
  config.update({'steps': 800, 'held_out': 500, 'learning_rate': 1e-3})
  return config


get_config = _variants.chooser(tiny, digits, digits_vit, images)
