"""Do language models of different texts merge into one that is good at all?

python -m experiments.merge_lm --config=configs/merge_lm.py:VARIANT
"""

import ml_collections

from configs import _variants


def python() -> ml_collections.ConfigDict:
  """Four texts that are part of every Python installation."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      # The embedded texts, or a folder of texts NAME.txt or NAME/*.txt.
      'data': 'python',
      'domains': ('code', 'manual', 'licences', 'characters'),  # (): all
      'seeds': 3,
      'seed': 0,
      'length': 64,  # bytes of a window
      'bytes': 400_000,  # of each domain at most, from all over the text
      'at_once': 1,  # on a CPU, experts side by side by vmap are not faster
      'model': {'width': 64, 'depth': 2, 'heads': 4, 'hidden': 176},
      'batch_size': 32,
      'base': {'steps': 200, 'rate': 3e-3},
      # How experts are trained; those of the main recipe are merged.
      'recipes': {
        'long': {'steps': 100, 'rate': 1e-3},
        'short': {'steps': 40, 'rate': 2e-3},
      },
      'main': 'long',
      'evaluation': {'windows': 64, 'batch_size': 64},
      'statistics': {'windows': 128},  # of each expert's training text
      'methods': (
        *('mean', 'sum', 'sum+by_depth', 'dare+sum', 'ties', 'magmax'),
        *('breadcrumbs+sum', 'consensus', 'pcb', 'sce', 'ram', 'ram_plus'),
        *('model_stock', 'variance_corrected', 'opcm', 'regmean', 'tsv'),
        *('iso_c', 'iso_cts', 'wudi'),
      ),
      # Validation text selects one value of a tuple.
      'arguments': {
        'ties': {'density': (0.2, 0.5)},
        'dare': {'rate': 0.5},
        'by_depth': {'depth': r'block_(\d+)/', 'start': 0.5, 'end': 1.0},
        'consensus': {'threshold': 0.4, 'min_tasks': 2},
        'breadcrumbs': {'density': 0.8, 'outliers': 0.01},
        'pcb': {'density': 0.2},
        'sce': {'select': (0.2, 1.0)},
        'opcm': {'alpha': 0.5, 'otherwise': 'mean'},
        'regmean': {'shrink': 0.9, 'otherwise': 'mean'},
        'tsv': {'otherwise': 'mean'},
        'iso_c': {'otherwise': 'mean'},
        'iso_cts': {'common': 0.8, 'otherwise': 'mean'},
        'wudi': {'rate': 1e-4, 'otherwise': 'mean'},
      },
      'coefs': {
        'default': (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5),
        'mean': (1.0,),
        'regmean': (1.0,),
      },
      'points': 11,  # of a line between two experts
      # Random subsets of the pool, of all recipes.
      'wild': {
        'methods': ('mean', 'sum', 'ties', 'model_stock', 'tsv', 'iso_c'),
        'sizes': (2, 4, 8),
        'draws': 5,  # subsets of each size, the same for all methods
        'coefs': (0.1, 0.25, 0.5, 1.0),
        'windows': 64,
      },
      'samples': {'bytes': 96, 'temperature': 0.6},
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = python()
  config.update(
    {
      'domains': ('manual', 'licences'),
      'seeds': 2,
      'length': 16,
      'bytes': 20_000,
      'model': {'width': 16, 'depth': 1, 'heads': 2, 'hidden': 32},
      'batch_size': 16,
      'base': {'steps': 20, 'rate': 1e-2},
      'evaluation': {'windows': 32, 'batch_size': 32},
      'methods': ('mean', 'sum', 'ties'),
      'points': 3,
      'samples': {'bytes': 16},
    }
  )
  config.recipes = {'long': {'steps': 10, 'rate': 1e-2}}
  config.coefs.default = (0.5, 1.0)
  config.wild.update(
    {
      'methods': ('mean', 'sum', 'model_stock'),
      'sizes': (2,),
      'windows': 32,
      'coefs': (1.0,),
    }
  )
  return config


def texts() -> ml_collections.ConfigDict:
  """All texts of a folder of the user."""
  config = python()
  config.update({'data': 'data', 'domains': (), 'points': 7})
  config.base.steps = 300
  config.wild.methods, config.wild.sizes = (
    ('mean', 'sum', 'ties', 'iso_c'),
    (2, 6, 12),
  )
  config.methods = (
    *('mean', 'sum', 'sum+by_depth', 'dare+sum', 'ties', 'pcb', 'sce', 'ram'),
    *('model_stock', 'regmean', 'tsv', 'iso_c'),
  )
  return config


get_config = _variants.chooser(tiny, python, texts, default='python')
