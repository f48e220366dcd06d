"""Are experts a better use of compute, and how far can they be merged?

  python -m experiments.experts --config=configs/experts.py:VARIANT

tiny: seconds, a test. Two domains, two seeds, briefly trained.

python: about four minutes on two free cores. Four texts that are part of every
Python installation, three seeds, two blocks of width 32 with eight experts.
Expect (test bits for each byte, mean over domains, +- over seeds, at the
largest budget):

  base 4.007 +- 0.015, dense, continued 2.790 +- 0.020, upcycled 2.703 +- 0.012,
  from scratch 2.666 +- 0.011; with four of eight experts left, merged and
  dropped: upcycled 3.268 and 3.587, from scratch 4.150 and 3.920

texts: the same for all texts of a folder of yours, --config.data=FOLDER: files
NAME.txt, or folders NAME of .txt files.
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
      'length': 32,  # bytes of a window
      'bytes': 400_000,  # of each domain at most, from all over the text
      'at_once': 1,
      'model': {'width': 32, 'depth': 2, 'heads': 4, 'hidden': 64},
      # An expert computes at most capacity * top_k / count of the tokens.
      'experts': {'count': 8, 'top_k': 2, 'capacity': 1.25, 'balance': 0.01},
      'batch_size': 32,
      'base': {'steps': 200, 'rate': 5e-3},
      'budgets': (0.5, 1.0, 2.0, 8.0),  # of compute, relative to the base
      'evaluation': {'windows': 64, 'batch_size': 64},
      # Mean numbers of experts left, and windows of a domain for the routing.
      'merge': {'averages': (6, 4, 2, 1), 'windows': 32},
      'fine_tuning': {'count': 4, 'steps': 50, 'rate': 1e-3},
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
      'model': {'width': 16, 'depth': 1, 'heads': 2, 'hidden': 16},
      'batch_size': 16,
      'base': {'steps': 20, 'rate': 1e-2},
      'budgets': (1.0,),
      'evaluation': {'windows': 32, 'batch_size': 32},
      'merge': {'averages': (2,), 'windows': 16},
      'fine_tuning': {'count': 2, 'steps': 10},
    }
  )
  config.experts.count = 4
  return config


def texts() -> ml_collections.ConfigDict:
  """All texts of a folder of the user."""
  config = python()
  config.update({'data': 'data', 'domains': ()})
  config.base.steps = 300
  return config


get_config = _variants.chooser(tiny, python, texts, default='python')
