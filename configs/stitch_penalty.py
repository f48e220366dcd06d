"""How far are the representations of two seeds from each other?

  python -m experiments.stitch_penalty \
    --config=configs/stitch_penalty.py:VARIANT

tiny: seconds, a test.

digits: TODO
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
  return [{'kind': kind} for kind in ('affine', 'orthogonal')]


def digits() -> ml_collections.ConfigDict:
  """Residual networks on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # of the digits, or in that folder
      'networks': 3,  # each is stitched on the next, the last on the first
      'seed': 0,
      'model': {
        # A public model of wsl.models and its arguments.
        'module': 'ResNet',
        'arguments': {
          'outputs': 10,
          'widths': (32,),
          'depth': 5,
          'stem': 3,
          'dense': (),
          'pool': 'mean',
        },
      },
      'training': {
        'optimizer': 'adamw',
        'learning_rate': 3e-3,  # the peak: a rise, then a cosine to zero
        'weight_decay': 0.05,
        'epochs': 15,
        'batch_size': 64,
        'at_once': 3,  # networks trained side by side by vmap
      },
      'kind': 'affine',  # of adapter, see wsl.stitch.fit_moments
      # Training images that no network learns from: adapters are fitted to
      # them, without labels.
      'held_out': 300,
      'fit': {'batch_size': 150},
      # The adapters of the diagonal, trained further with labels.
      'adapters': {'learning_rate': 1e-3, 'steps': 200, 'batch_size': 64},
      'evaluation': {'batch_size': 150},
    }
  )


def digits_vit() -> ml_collections.ConfigDict:
  """Vision transformers on the embedded digits."""
  config = digits()
  with config.unlocked():
    config.model = {
      'module': 'ViT',
      'arguments': {
        'outputs': 10,
        'patch': 2,
        'width': 32,
        'depth': 6,
        'heads': 4,
        'pool': 'mean',
      },
    }
  config.training.epochs = 30
  return config


def tiny() -> ml_collections.ConfigDict:
  """Seconds: does everything work?"""
  config = digits()
  config.networks = 2
  with config.unlocked():
    config.model = {
      'module': 'MLP',
      'arguments': {'outputs': 10, 'widths': (16, 16)},
    }
  config.training.epochs = 3
  config.adapters.steps = 4
  return config


def images() -> ml_collections.ConfigDict:
  """The same on larger images; the data folder is the user's."""
  config = digits()
  config.data, config.task = 'data', 'mnist'
  config.training.update({'epochs': 5, 'batch_size': 100, 'at_once': 1})
  config.evaluation.batch_size = 250
  return config


VARIANTS = {
  'tiny': tiny,
  'digits': digits,
  'digits_vit': digits_vit,
  'images': images,
}
