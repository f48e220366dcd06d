"""Is one nested network as good as a network of each width?

  python -m experiments.nested --config=configs/nested.py:VARIANT

tiny: seconds, a test.

digits: minutes on two free cores.

images: larger images from a folder of the user: --config.data=FOLDER with a
task 'mnist' (see wsl.data.folder).
"""

import ml_collections

from configs import _variants


def digits() -> ml_collections.ConfigDict:
  """Vision transformers on the embedded digits."""
  return ml_collections.ConfigDict({
    'variant': '',
    'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
    'task': 'upright',  # of the digits, or in that folder
    'seeds': 3,
    'seed': 0,
    'model': {
      'module': 'ViT',  # or 'MLP', without normalisation of hidden units
      'arguments': {
        'patch': 4, 'width': 32, 'depth': 3, 'heads': 4, 'expansion': 4,
        'pool': 'mean',
      },
    },
    # Regular expressions: the elastic groups, and the maps that read them.
    'groups': 'mlp',
    'readers': 'mlp/down/kernel',
    'factors': (1, 2, 4, 8),  # by which hidden units are divided
    # How nested networks are trained, see experiments/_nested/networks.py.
    'kinds': ('summed', 'sampled', 'mixed'),
    'steps': 500,
    'batch_size': 64,
    'learning_rate': 3e-3,
    'held_out': 256,  # training images for the importance of units
  })  # fmt: skip


def digits_mlp() -> ml_collections.ConfigDict:
  """Perceptrons of three elastic layers."""
  config = digits()
  with config.unlocked():
    config.model = {
      'module': 'MLP', 'arguments': {'widths': (64, 64, 64), 'norm': False},
    }  # fmt: skip
  config.update({'groups': '', 'readers': '(block_[12]/dense|output)/kernel'})
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits_mlp()
  config.model.arguments.widths = (16, 16)
  config.update({
    'readers': '(block_1/dense|output)/kernel', 'seeds': 1, 'factors': (1, 4),
    'kinds': ('sampled',), 'steps': 60, 'held_out': 64,
  })  # fmt: skip
  return config


def images() -> ml_collections.ConfigDict:
  """The same on larger images, from a folder of the user."""
  config = digits()
  config.data, config.task = 'data', 'mnist'
  config.model.arguments.update({'patch': 7, 'width': 48})
  config.update({'steps': 800, 'held_out': 500})
  return config


get_config = _variants.chooser(tiny, digits, digits_mlp, images)
