"""Can new queries search an old gallery?"""

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
  return [{'basis.kind': 'cayley'}, {'basis.kind': 'exponential'}]


def digits() -> ml_collections.ConfigDict:
  """Three models of the embedded digits, one after the other."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # the digits as they are, or a task in that folder
      'held_out': 448,  # training images that no model sees: the gallery
      'seeds': 5,
      'seed': 0,
      'at_once': 5,  # models trained side by side by vmap
      'methods': ('independent', 'bct', 'bt2', 'simplex', 'simplex_hoc'),
      # The model of each stage learns the first classes; its hidden layer.
      'stages': {'classes': (5, 10, 10), 'hidden': (128, 128, 512)},
      'width': 32,  # of the features; the simplex allows for one class more
      'sharpness': 10.0,  # of the logits of directions
      'training': {'steps': 600, 'batch_size': 64, 'learning_rate': 2e-3},
      # Arguments of stitch.bct_loss, bt2_loss, hoc_loss and random_basis.
      'bct': {'weight': 10.0},
      'bt2': {'weights': (1.0, 10.0, 5.0)},
      'hoc': {'sharpness': 10.0, 'weight': 0.1},
      'basis': {'extra': 8, 'scale': 2.0, 'kind': 'cayley'},
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """Seconds: does everything work?"""
  config = digits()
  config.seeds = 2
  config.methods = ('independent', 'bt2', 'simplex_hoc')
  config.stages = {'classes': (5, 10), 'hidden': (32, 32)}
  config.width = 12
  config.basis.extra = 4
  config.training.update({'steps': 80, 'learning_rate': 1e-2})
  return config


def images() -> ml_collections.ConfigDict:
  """28x28 images; the data folder is the user's."""
  config = digits()
  config.data, config.task = 'data', 'mnist'
  config.held_out, config.seeds = 1000, 3
  config.stages = {'classes': (5, 10, 10), 'hidden': (256, 256, 512)}
  config.training.update({'steps': 2000, 'learning_rate': 1e-3})
  return config


VARIANTS = {'tiny': tiny, 'digits': digits, 'images': images}
