"""What do pretrained networks of different depths share?

  python -m experiments.stitch_zoo --config=configs/stitch_zoo.py:VARIANT

tiny: seconds, a test.

digits: TODO

cifar: TODO
"""

import ml_collections

from wsl import tree


def get_config(variant: str = 'digits') -> ml_collections.ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    hint = tree.nearest(variant, list(VARIANTS))
    raise ValueError(
      f"no variant '{variant}'{hint}: there are {', '.join(VARIANTS)}"
    )
  config = VARIANTS[variant]()
  config.variant = variant
  return config


def sweep() -> list[dict[str, object]]:
  """Returns what ``--sweep`` runs, as fields that differ."""
  return [{'fit.examples': count} for count in (50, 100, 300)]


def digits() -> ml_collections.ConfigDict:
  """Small networks, trained here on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'digits',  # in that folder
      'weights': '',  # folder of cifar_resnetDEPTH.npz; none trains them
      'seed': 0,
      'depths': (8, 14, 20),
      'widths': (8, 16, 32),
      'outputs': 10,
      # How a pixel is normalised: x / range, minus mean, over deviation.
      'pixels': {'range': 1, 'mean': (0.3,), 'std': (0.37,)},
      'training': {
        'optimizer': 'sgd',  # momentum 0.9, decay in the gradient; or 'adamw'
        'learning_rate': 0.1,  # the peak: a rise, then a cosine to zero
        'weight_decay': 5e-4,
        'epochs': 12,
        'batch_size': 64,
        'at_once': 1,
      },
      'cuts': (3, 6, 9),  # ninths of the depth
      # Training images that adapters are fitted to, without labels.
      'fit': {'examples': 300, 'batch_size': 150},
      # Of adapters: the first for all pairs, all where it is looked closely.
      'kinds': ('affine', 'orthogonal'),
      'close': ((8, 20), (20, 8)),  # (bottom, top) with controls and training
      'adapters': {
        'learning_rate': 1e-3,
        'epochs': 3,
        'examples': 1000,
        'batch_size': 50,
      },
      'evaluation': {'examples': 449, 'batch_size': 150},
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """Seconds: does everything work?"""
  config = digits()
  config.depths, config.widths = (8, 14), (2, 3, 4)
  config.training.epochs = 1
  config.cuts, config.close = (6,), ((14, 8),)
  config.kinds = ('affine',)
  config.fit = {'examples': 60, 'batch_size': 60}
  config.adapters.update({'epochs': 1, 'examples': 100})
  config.evaluation = {'examples': 150, 'batch_size': 150}
  return config


def cifar() -> ml_collections.ConfigDict:
  """Pretrained networks; weights and images are the user's."""
  config = digits()
  config.data, config.task = 'data', 'cifar10_rgb'
  config.weights = 'data/weights'
  config.depths, config.widths = (20, 32, 44, 56), (16, 32, 64)
  config.pixels = {
    'range': 255,
    'mean': (0.485, 0.456, 0.406),
    'std': (0.229, 0.224, 0.225),
  }
  config.cuts = (2, 4, 6, 8)
  config.fit.batch_size = 100
  config.close = ((20, 56), (56, 20))
  config.adapters.epochs = 2
  config.evaluation = {'examples': 1000, 'batch_size': 100}
  return config


VARIANTS = {'tiny': tiny, 'digits': digits, 'cifar': cifar}
