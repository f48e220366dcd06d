"""Do language models of different texts merge into one that is good at all?

  python -m experiments.merge_lm --config=configs/merge_lm.py:VARIANT

tiny: seconds, a test. Two domains, two seeds, briefly trained.

python: three minutes on two free cores. Four texts that are part of every
Python installation (they depend on its version and packages: the record has
their hashes), three seeds, a transformer of 117,056 parameters. Expect (test
bits for each byte, mean over domains, +- over seeds):

  base 3.568 +- 0.027, RegMean 3.602, MagMax 3.535, TIES 3.534, PCB 3.533, SCE
  3.531, TSV-M 3.523, consensus 3.517, WUDI 3.511, Iso-CTS 3.511, Model Stock
  3.509, DARE + sum 3.509, Iso-C 3.506, OPCM 3.505, variance corrected 3.503,
  Breadcrumbs 3.503, task arithmetic 3.502, RAM, RAM+, greedy soup and average
  3.501, LiNeS 3.494 +- 0.022, own experts 3.163, joint training 3.070 +- 0.016

texts: four minutes on two free cores. All texts of a folder of yours,
--config.data=FOLDER: files NAME.txt, or folders NAME of .txt files. Expect for
three English books and manual pages in three languages:

  base 3.576 +- 0.012, average 3.571, TIES 3.559, task arithmetic 3.556, Iso-C
  3.543 +- 0.016, own experts 3.175, joint training 3.221
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
