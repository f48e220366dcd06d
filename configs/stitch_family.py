"""Can three trained networks become tens of networks, and is it worth it?"""

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
  return [{'joint.epochs': epochs} for epochs in (15, 30, 60)]


def digits() -> ml_collections.ConfigDict:
  """Small vision transformers on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # of the digits, or in that folder
      'held_out': 248,  # training images by which networks are chosen
      'seeds': 3,
      'seed': 0,
      # The anchors, the least complex first; v2 stitches the outermost two.
      'widths': (8, 16, 32),
      'depths': (4, 4, 4),
      'heads': 4,
      'patch': 2,
      'training': {'epochs': 40, 'batch_size': 64, 'learning_rate': 3e-3},
      'calibration': 100,  # training images for least squares
      # The epochs are those of v1; all other trainings have its cost.
      'joint': {
        'epochs': 60,
        'learning_rate': 3e-3,
        'rank': 8,  # of v2's updates
        'buckets': 8,  # of v2's costs
        'rising': False,  # whether costlier buckets are drawn more often
      },
      # Networks of the last anchor's depth, which it teaches.
      'students': {'widths': (12, 24)},
      # Of all stitches between neighbours.
      'selection': {'count': 8, 'measure': 'residual'},
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """Seconds: does everything work?"""
  config = digits()
  config.seeds = 2
  config.widths, config.depths, config.heads = (4, 8), (2, 2), 2
  config.patch = 4
  config.training.epochs, config.joint.epochs = 6, 2
  config.joint.rank = 2
  config.students.widths = (6,)
  config.selection.count = 2
  return config


def images() -> ml_collections.ConfigDict:
  """A real task; the data folder is the user's."""
  config = digits()
  config.data, config.task = 'data', 'fashion'
  config.held_out = 1000
  config.widths, config.students.widths = (16, 32, 64), (24, 48)
  config.patch = 7
  return config


VARIANTS = {'tiny': tiny, 'digits': digits, 'images': images}
