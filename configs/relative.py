"""Does a decoder read an encoder that it was never trained with?"""

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
  return [
    {'relative.kind': 'cosine', 'relative.center': False},
    {'relative.kind': 'cosine', 'relative.center': True},
    {'relative.kind': 'euclidean', 'relative.center': True},
    {'relative.kind': 'basis', 'relative.center': True},
  ]


def digits() -> ml_collections.ConfigDict:
  """Classifiers and autoencoders of the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # the digits as they are, or a task in that folder
      'held_out': 348,  # training images that no network sees: the anchors
      'objectives': ('classes', 'images'),
      'replicates': 3,  # each with networks and anchors of its own
      'seeds': 2,  # networks of each width in a replicate
      'widths': (24, 48),  # of the latents
      'hidden': 128,
      'seed': 0,
      'at_once': 12,  # networks trained side by side by vmap
      'training': {'steps': 600, 'batch_size': 64, 'learning_rate': 2e-3},
      'anchors': (10, 30, 100, 300),
      # Arguments of stitch.relative and of stitch.translate.
      'relative': {'kind': 'cosine', 'center': True, 'normalize': False},
      'translate': {'scale': 'none'},
      'shown': 8,  # images in the figure of reconstructions
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """Seconds: does everything work?"""
  config = digits()
  config.replicates, config.seeds = 2, 1
  config.widths, config.hidden = (8, 12), 32
  config.training.update({'steps': 60, 'learning_rate': 1e-2})
  config.anchors = (6, 40)
  return config


def images() -> ml_collections.ConfigDict:
  """28x28 images; the data folder is the user's."""
  config = digits()
  config.data, config.task = 'data', 'mnist'
  config.held_out, config.hidden = 500, 256
  config.widths = (32, 64)
  config.training.update({'steps': 1500, 'learning_rate': 1e-3})
  return config


VARIANTS = {'tiny': tiny, 'digits': digits, 'images': images}
