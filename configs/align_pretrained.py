r"""How much of the distance between pretrained networks is a gauge?

  python -m experiments.align_pretrained \
    --config=configs/align_pretrained.py:VARIANT

tiny: seconds, a test. Random networks of style transfer.

style: minutes. Networks of style transfer from a folder of yours,
--config.data_dir=FOLDER, with weights/style_NAME.npz and cifar10_rgb.npz.
Expect no gauge to remove any of the distance: it stays 0.879 of that of
orthogonal networks for la_muse and wave, 0.528 and 0.581 for the siblings.

resnets: minutes. ResNets of CIFAR-10 from weights/cifar_resnetDEPTH.npz. They
differ in depth: deeper ones are cut to the smallest depth, and trained on.
Scales are left out: where moments are reset, as on these lines, a network whose
kernels were scaled and whose gains make up for it is another function.
"""

import ml_collections

from configs import _variants


def style() -> ml_collections.ConfigDict:
  """Networks of style transfer, from a folder of the user."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'kind': 'style',
      'data_dir': 'data',  # with the task and the folder of weights
      'weights': 'weights',
      'task': 'cifar10_rgb',
      # One of unrelated networks, two of siblings.
      'pairs': (
        ('la_muse', 'wave'),
        ('mathura', 'matilde_perez'),
        ('mathura', 'matta'),
      ),
      'seed': 0,
      # Kinds of gauges that are matched beside permutations, in each row those
      # of the rows before and some more.
      'ladder': (('sign',), ('scale',)),
      'noise': 0.3,  # of the control with noise, relative to each matrix
      'points': 5,  # on a line
      'images': 8,
      'side': 64,  # of the images, a multiple of 4
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = style()
  config.update({'data_dir': '', 'points': 3, 'images': 4, 'side': 16})
  config.pairs, config.ladder = (('one', 'other'),), (('sign', 'scale'),)
  with config.unlocked():
    config.widths, config.blocks = (4, 6, 8), 1
  return config


def resnets() -> ml_collections.ConfigDict:
  """Residual networks of CIFAR-10, from a folder of the user."""
  config = style()
  config.update({'kind': 'resnet', 'images': 250, 'points': 3})
  config.pairs, config.ladder = ((20, 32),), (('sign',),)
  with config.unlocked():
    del config.side
    config.tuning = {'steps': 20, 'batch_size': 64, 'learning_rate': 1e-3}
    config.statistics = 200  # training images that moments are reset on
  return config


get_config = _variants.chooser(tiny, style, resnets, default='style')
