"""Is a deep network better trained whole, or module by module?

  python -m experiments.assemble --config=configs/assemble.py:VARIANT

tiny: seconds, a test.
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
  return [{'learning_rate': rate} for rate in (1e-3, 3e-3, 1e-2)]


def digits() -> ml_collections.ConfigDict:
  """A vision transformer of twelve blocks on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # a turn of the digits, or a task in that folder
      'held_out': 200,  # training images that no network learns from
      'seeds': 3,
      'seed': 0,
      'at_once': 12,  # runs trained side by side by vmap
      'model': {
        # A public model of wsl.models and its arguments.
        'module': 'ViT',
        'arguments': {
          'outputs': 10,
          'patch': 4,
          'width': 24,
          'depth': 12,
          'heads': 3,
        },
      },
      'modules': 4,  # a divisor of the depth; the meta model has as many blocks
      'steps': 400,  # of the whole network, at the full budget
      'batch_size': 64,
      'learning_rate': 3e-3,  # the peak: a rise, then a cosine to zero
      'budgets': (0.25, 0.5, 1.0),  # of compute; all training images
      'fractions': (0.1, 0.3, 1.0),  # of training images; the full budget
      # What the stages of the incubation get of a budget.
      'shares': {'meta': 0.25, 'modules': 0.45, 'fine_tuning': 0.3},
      'evaluation': {'batch_size': 449},
      # A zoo to reassemble; no seeds leave it out.
      'zoo': {
        'seeds': 3,
        'networks': {
          'wide': {
            'module': 'MLP',
            'arguments': {'widths': (128,) * 4, 'outputs': 10},
          },
          'middle': {
            'module': 'MLP',
            'arguments': {'widths': (96,) * 6, 'outputs': 10},
          },
          'deep': {
            'module': 'MLP',
            'arguments': {'widths': (64,) * 8, 'outputs': 10},
          },
        },
        'training': {
          'optimizer': 'adamw',
          'learning_rate': 3e-3,
          'weight_decay': 1e-2,
          'epochs': 20,
          'batch_size': 64,
          'at_once': 3,
        },
        'blocks': 3,  # of each network, and of a reassembled one
        'slack': 0.2,  # how far a block may exceed an equal share
        'budget': 0.7,  # FLOPs of the blocks, in those of the largest network
        # Training images without labels: for CKA, adapters and NASWOT.
        'statistics': {'examples': 1000, 'batch_size': 64},
        'fine_tuning': {'steps': 50, 'batch_size': 64, 'learning_rate': 1e-3},
      },
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """Seconds: does everything work?"""
  config = digits()
  config.seeds, config.modules, config.steps = 2, 2, 40
  with config.unlocked():
    # Blocks as wide as an image has pixels, so that they are all alike.
    arguments = {'widths': (64,) * 4, 'outputs': 10, 'norm': False}
    config.model = {'module': 'MLP', 'arguments': arguments}
    del config.zoo.networks['middle']
  config.budgets, config.fractions = (1.0,), (0.1, 1.0)
  config.zoo.seeds, config.zoo.blocks = 1, 2
  for network in config.zoo.networks.values():
    network.arguments.widths = network.arguments.widths[:2]
    with network.unlocked():
      network.arguments.norm = False
  config.zoo.training.epochs = 2
  config.zoo.fine_tuning.steps = 4
  config.zoo.statistics.examples = 128
  return config


def images() -> ml_collections.ConfigDict:
  """The same on 28x28 images; the data folder is the user's."""
  config = digits()
  config.data, config.task = 'data', 'fashion'
  config.held_out, config.steps, config.at_once = 500, 600, 4
  config.model.arguments.update({'patch': 7, 'width': 48, 'heads': 4})
  config.evaluation.batch_size = 500
  config.zoo.training.update({'epochs': 10, 'batch_size': 100})
  return config


VARIANTS = {'tiny': tiny, 'digits': digits, 'images': images}
