"""Which layer programs are worth their compute?

  python -m experiments.depth_surgery --config=configs/depth_surgery.py:VARIANT

tiny: seconds, a test.

python: about five minutes on two free cores (estimated). Four texts that are
part of every Python installation (the record has their hashes), three seeds,
transformers of 6 blocks, 334,656 parameters. Expect (test bits for each byte,
+- over seeds):

  budget, steps              80              160             320
  from scratch               4.473 +- 0.036  3.923 +- 0.026  3.291 +- 0.019
  stacked whole (G_stack)    4.182 +- 0.041  3.671 +- 0.042  3.146 +- 0.028
  each block repeated        4.201 +- 0.046  3.691 +- 0.031  3.193 +- 0.022
  identity blocks (G_zero)   4.045 +- 0.042  3.580 +- 0.050  3.086 +- 0.025

Of the last networks 4 of 6 blocks, cut and after 40 steps: CRaSh 3.70 and 3.42,
gates 3.64 and 3.40, the first four 3.61 and 3.39. Paths to the label, which the
search knows: 67 % of windows, to a wrong byte 33 %; the network itself 40 %.

texts: all texts of a folder of yours, --config.data=FOLDER: files NAME.txt, or
folders NAME of .txt files.
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
      'model': {'width': 64, 'heads': 4, 'hidden': 176},
      'depth': 6,
      'batch_size': 16,
      'rate': 3e-3,
      'evaluation': {'windows': 64, 'batch_size': 64},
      # Growth: the depth is so many times that of the shallow network, which
      # is trained with a share of the compute.
      'growth': 3,
      'small_share': 0.25,
      'budgets': (80, 160, 320),  # in steps of the deep network
      # Cuts of the deep networks of the largest budget.
      'cuts': {
        'methods': (
          *('crash', 'fold', 'last', 'best', 'scratch', 'parallel'),
          *('stepwise', 'stepwise_rank', 'average', 'average_rank'),
          'fold_tied',
        ),
        'keep': 4,  # blocks
        'steps': 40,
        'rate': 1e-3,
        'rank': 8,  # of residuals
        'gate_steps': 60,
        'gate_rate': 0.03,
      },
      # Paths through the same networks.
      'paths': {
        'windows': 64,
        'simulations': 40,
        'longest': 9,
        'penalty': 0.1,
        'explore': 1.0,
      },
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
      'model': {'width': 16, 'heads': 2, 'hidden': 32},
      'depth': 4,
      'batch_size': 16,
      'rate': 1e-2,
      'evaluation': {'windows': 32, 'batch_size': 64},
      'growth': 2,
      'budgets': (20,),
    }
  )
  # Shallow and cut networks have one shape, and are trained by one program.
  config.cuts.update(
    {
      'methods': ('crash', 'fold'),
      'keep': 2,
      'steps': 10,
      'rate': 1e-2,
      'rank': 2,
      'gate_steps': 5,
    }
  )
  config.paths.update({'windows': 16, 'simulations': 6, 'longest': 6})
  return config


def texts() -> ml_collections.ConfigDict:
  """All texts of a folder of the user."""
  config = python()
  config.update({'data': 'data', 'domains': ()})
  return config


get_config = _variants.chooser(tiny, python, texts, default='python')
