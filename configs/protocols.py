"""Which merges pass the published protocols, and do their claims hold here?

  python -m experiments.protocols --config=configs/protocols.py:VARIANT

tiny: seconds, a test.

digits: an hour on busy cores. Twelve tasks made from scikit-learn's digits,
eight of them with an expert; twelve unlike experts; two models, three seeds.
Expect for the large model (+- over seeds)

  MergeBench, score relative to the experts: TSV-M 87.5 +- 0.7, RegMean 86.1 +-
  0.1, Iso-C 84.7 +- 0.2, task arithmetic 74.8 +- 0.6, average 66.6 +- 1.0
  at scale, task arithmetic on 2 and 8 experts: held-in 95.6 +- 1.2 and 74.8 +-
  0.6, held-out 70.2 +- 3.6 and 85.3 +- 5.2
  in the wild, gain of task arithmetic over the best of 2 and 12 experts: 5.0 +-
  0.8 and 11.1 +- 1.0 points
"""

import ml_collections

from configs import _variants, merge_vision

_FIXED = {
  'ties': {'density': 0.2},
  'dare': {'rate': 0.9},
  'tsv': {'otherwise': 'mean'},
  'iso_c': {'otherwise': 'mean'},
}


def digits() -> ml_collections.ConfigDict:
  """Twelve tasks made from the embedded digits."""
  config = ml_collections.ConfigDict(_variants.suite())
  config.update({
    'tasks': (
      *('upright', 'rotated', 'inverted', 'shuffled'),
      *('mirrored', 'turned', 'striped', 'rolled'),
      # No expert is trained on these.
      *('flipped', 'transposed', 'checkered', 'interleaved'),
    ),
    'experts_of': 8,  # the first tasks have an expert
    'seeds': 3,
    'seed': 0,  # of subsets, and of the tasks and labels of unlike experts
    'merge_seed': 0,  # of random masks
    'statistics': {'examples': 256},
    'sizes': ('small', 'large'),
    'coefs': {
      'default': (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0),
      **dict.fromkeys(('mean', 'fisher', 'regmean', 'model_stock'), (1.0,)),
    },
    # The whole pool; a tuple of arguments is searched.
    'merge_bench': {
      'methods': (
        *('mean', 'sum', 'ties', 'dare+sum', 'consensus', 'fisher'),
        *('regmean', 'localize_and_stitch', 'tsv', 'iso_c'),
      ),
      'arguments': {
        **_FIXED,
        'ties': {'density': (0.1, 0.2, 0.3, 0.5)},
        'dare': {'rate': (0.5, 0.8, 0.9)},
        'consensus': {'threshold': (0.2, 0.4, 0.6), 'min_tasks': 2},
        'localize_and_stitch': {'density': (0.05, 0.1, 0.3)},
        'regmean': {'shrink': 0.9},
      },
    },
    # Random subsets of the pool, at the arguments of the paper.
    'at_scale': {
      'methods': ('mean', 'sum', 'ties', 'dare+ties'),
      'arguments': _FIXED,
      'sizes': (2, 4, 6, 8),
      'draws': 8,
    },
    # Random subsets of unlike experts.
    'in_the_wild': {
      'methods': ('mean', 'sum', 'ties', 'model_stock', 'tsv', 'iso_c'),
      'arguments': _FIXED,
      'sizes': (2, 4, 6, 8, 10, 12),
      'draws': 8,
      # How many experts, each of how many random tasks; the share of wrong
      # labels.
      'groups': {
        'narrow': {
          'experts': 4, 'tasks': 1, 'epochs': 20, 'rate': 1e-3, 'noise': 0.0,
        },
        'broad': {
          'experts': 4, 'tasks': 3, 'epochs': 5, 'rate': 1e-3, 'noise': 0.0,
        },
        'noisy': {
          'experts': 4, 'tasks': 2, 'epochs': 10, 'rate': 2e-3, 'noise': 0.3,
        },
      },
    },
  })  # fmt: skip
  config.models = {
    'small': {
      'module': 'MLP',
      'arguments': {'widths': (32, 32, 32), 'outputs': 32},
      'expert_rate': 2e-3,
    },
    'large': {
      'module': 'MLP',
      'arguments': {'widths': (128, 128, 128), 'outputs': 128},
      'expert_rate': 1e-3,
    },
  }
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  small = merge_vision.get_config('tiny')
  for field in ('validation', 'seeds', 'base', 'experts'):
    config[field] = small[field]
  config.update({
    'tasks': ('upright', 'inverted', 'striped'),
    'experts_of': 2,
    'sizes': ('small',),
    'coefs': {'default': (0.3, 1.0), 'mean': (1.0,)},
  })  # fmt: skip
  config.models.small.arguments.update({'widths': (32,), 'outputs': 32})
  config.merge_bench.methods = ('sum', 'ties')
  config.merge_bench.arguments.ties.density = (0.2, 0.5)
  config.at_scale.update({'methods': ('sum',), 'sizes': (1, 2)})
  wild = {'methods': ('sum', 'mean'), 'sizes': (2,), 'draws': 2}
  config.in_the_wild.update(wild)
  groups = config.in_the_wild.groups
  del groups.narrow, groups.noisy
  few = {'experts': 3, 'tasks': 2, 'epochs': 1, 'noise': 0.1}
  groups.broad.update(few)
  return config


get_config = _variants.chooser(tiny, digits)
