"""One encoder, many tasks: which merge of the experts keeps most?

  python -m experiments.merge_vision --config=configs/merge_vision.py:VARIANT

Variants:
  tiny     seconds, a test: two tasks, two seeds
  digits   four tasks made from scikit-learn's embedded digits
  suite8   eight real tasks from --config.data=FOLDER; also suite8,model=vit
"""

import ml_collections

from wsl import tree

# Coefficients to choose from. The average, Fisher and RegMean have none.
COEFS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)

METHODS = (
  'mean',
  'sum',
  'sum+by_depth',
  'dare+sum',
  'ties',
  'consensus',
  'fisher',
  'regmean',
  'tsv',
  'iso_c',
  'iso_cts',
  'tall_masks',
)


def get_config(variant: str = 'digits') -> ml_collections.ConfigDict:
  """Returns the config of ``'VARIANT'`` or ``'VARIANT,model=NAME'``."""
  name, *rest = variant.split(',')
  if name not in VARIANTS:
    hint = tree.nearest(name, list(VARIANTS))
    raise ValueError(
      f"no variant '{name}'{hint}: there are {', '.join(VARIANTS)}"
    )
  config = VARIANTS[name]()
  config.variant = variant
  for item in rest:
    key, _, value = item.partition('=')
    if key != 'model' or value not in config.models:
      raise ValueError(
        f"variant '{variant}': '{item}' is none of "
        f'{", ".join(f"model={m}" for m in config.models)}'
      )
    config.model = value
  return config


def sweep() -> list[dict[str, object]]:
  """Returns what ``--sweep`` runs, as fields that differ."""
  return [{'model': 'cnn'}, {'model': 'vit'}]


def digits() -> ml_collections.ConfigDict:
  """Four tasks made from the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'tasks': ('upright', 'rotated', 'inverted', 'shuffled'),
      'validation': 250,  # images of each task held out from training
      'seeds': 5,
      'at_once': 5,  # runs trained side by side by vmap; the others wait
      'model': 'mlp',
      'models': {
        # A public model of wsl.models, its arguments, the experts' peak rate.
        'mlp': {
          'module': 'MLP',
          'arguments': {'widths': (128, 128, 128), 'outputs': 128},
          'expert_rate': 1e-3,
        },
      },
      'base': {
        'examples': 20,  # of each task
        'steps': 200,
        'batch_size': 64,
        'learning_rate': 1e-3,
      },
      # The joint model takes as many steps as all experts together.
      'experts': {'epochs': 20, 'batch_size': 64},
      'statistics': {'examples': 256},  # unlabelled images for each expert
      'methods': METHODS,
      # Arguments by function; of a tuple one is chosen on validation data.
      'arguments': {
        'ties': {'density': (0.1, 0.2, 0.5)},
        'dare': {'rate': (0.5, 0.9)},
        'by_depth': {
          'depth': r'block_(\d+)/',
          'start': (0.2, 0.5),
          'end': 1.0,
        },
        'consensus': {'threshold': (0.2, 0.4, 0.6), 'min_tasks': 2},
        'tall_masks': {'threshold': (0.2, 0.3, 0.4, 0.5, 0.6)},
        'fisher': {'normalize': (False, True)},
        'regmean': {'shrink': (0.7, 0.9, 1.0)},
        'iso_cts': {'common': (0.5, 0.8)},
      },
      'coefs': {
        'default': COEFS,
        'mean': (1.0,),
        'fisher': (1.0,),
        'regmean': (1.0,),
        'tall_masks': (1.0,),
      },
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """Seconds: does everything work?"""
  config = digits()
  config.update(
    {
      'tasks': ('upright', 'inverted'),
      'validation': 449,
      'seeds': 2,
      'base': {'steps': 40, 'batch_size': 32, 'learning_rate': 3e-3},
      'experts': {'epochs': 2, 'batch_size': 128},
      'statistics': {'examples': 32},
      'methods': ('mean', 'sum', 'ties', 'regmean', 'tsv', 'tall_masks'),
    }
  )
  config.models.mlp.arguments.widths = (32, 32)
  config.models.mlp.arguments.outputs = 32
  config.models.mlp.expert_rate = 5e-3
  config.coefs.default = (0.3, 0.6, 1.0)
  config.arguments.ties.density = (0.2, 0.5)
  return config


def suite8() -> ml_collections.ConfigDict:
  """Eight real tasks; the data folder is the user's."""
  config = digits()
  config.update(
    {
      'data': 'data',
      'tasks': (
        'mnist',
        'fashion',
        'animal',
        'notmnist',
        'kannada',
        'hoda',
        'cifar10_grey',
        'bangla',
      ),
      'validation': 500,
      'seeds': 3,
      'at_once': 1,
      'model': 'cnn',
      'base': {'examples': 100, 'steps': 300, 'batch_size': 128},
      'experts': {'epochs': 4},
      'statistics': {'examples': 128},
    }
  )
  config.models = {
    'cnn': {'module': 'ResNet', 'arguments': {}, 'expert_rate': 3e-4},
    'vit': {
      'module': 'ViT',
      'arguments': {'outputs': 256},
      'expert_rate': 5e-4,
    },
  }
  return config


VARIANTS = {'tiny': tiny, 'digits': digits, 'suite8': suite8}
