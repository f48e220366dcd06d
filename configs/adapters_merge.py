r"""Which merge of LoRAs keeps most of what they learned?

  python -m experiments.adapters_merge \
    --config=configs/adapters_merge.py:VARIANT

tiny: seconds, a test. Two tasks, two seeds, two pools.

python: six minutes of a processor. The four texts and the transformer of
merge_lm, LoRAs of rank 8 on its linear maps, three seeds. Expect (retained part
of the gain of the LoRAs, %, of A drawn for each task, +- over seeds):

  exact sum 8.9 +- 1.1, sums of A and of B 2.6, TIES on products 6.1, on A and B
  1.0, KnOTS 4.9, TSV-M 7.1, LoRA-LEGO 4.9 +- 1.3, truncated sum 6.3, RMM 46.4

digits: three minutes of a processor. The four tasks of merge_vision on the
digits, an MLP. Expect:

  exact sum 63.1 +- 7.9, sums of A and of B 20.7, TIES on products 43.1, on A
  and B 1.5, KnOTS 42.4, TSV-M 64.4 +- 3.9, LoRA-LEGO 30.3 +- 11.2, truncated
  sum 43.6 +- 12.4, RMM 74.6 +- 3.8

texts, suite8: all texts, or eight tasks of 28x28 images, from a folder of
yours, --config.data=FOLDER. They were not run.
"""

import ml_collections

from configs import _variants, merge_lm


def python() -> ml_collections.ConfigDict:
  """Four texts that are part of every Python installation."""
  config = ml_collections.ConfigDict(_lora())
  texts = merge_lm.python()
  for field in ('data', 'domains', 'length', 'bytes', 'model', 'at_once'):
    config[field] = texts[field]
  config.problem = 'language'
  config.base = {'steps': 200, 'batch_size': 32, 'learning_rate': 3e-3}
  config.evaluation = {'windows': 64, 'batch_size': 64}
  return config


def digits() -> ml_collections.ConfigDict:
  """Four tasks made from the embedded digits."""
  config = ml_collections.ConfigDict(_lora() | _variants.suite())
  config.problem = 'vision'
  config.tasks = ('upright', 'rotated', 'inverted', 'shuffled')
  config.lora.update({'steps': 200, 'batch_size': 64, 'rate': 5e-3})
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.update(
    {
      'tasks': ('upright', 'inverted'),
      'validation': 449,
      'seeds': 2,
      'pools': ('own', 'orthogonal'),
      'merges': ('sum', 'separate', 'lego', 'rmm'),
      'frozen_merges': ('sum',),
      'coefs': (0.5, 1.0),
      'ranks': (4,),
      'base': {
        'steps': 40, 'batch_size': 32, 'learning_rate': 3e-3, 'examples': 20,
      },
    }
  )  # fmt: skip
  config.models.mlp.arguments = {'widths': (16,), 'outputs': 16}
  config.lora.update({'rank': 2, 'steps': 40, 'batch_size': 32, 'rate': 2e-2})
  return config


def texts() -> ml_collections.ConfigDict:
  """All texts of a folder of the user."""
  config = python()
  config.update({'data': 'data', 'domains': ()})
  return config


def suite8() -> ml_collections.ConfigDict:
  """Eight real tasks of 28x28 images, from a folder of the user; an MLP."""
  config = digits()
  config.update(_variants.SUITE8)
  config.base.learning_rate = 1e-3
  return config


def _lora() -> dict[str, object]:
  """Returns what all variants have in common."""
  return {
    'variant': '',
    'seeds': 3,
    'seed': 0,
    'pools': ('own', 'shared', 'frozen', 'orthogonal'),
    'lora': {
      'rank': 8,
      'leaves': 'kernel$',
      'steps': 80,
      'batch_size': 32,
      'rate': 1e-2,
    },
    'merges': (
      *('sum', 'separate', 'ties', 'ties_factors', 'knots', 'tsv'),
      *('lego', 'lego_invariant', 'truncated', 'rmm'),
    ),
    # Of the pools whose A is frozen.
    'frozen_merges': ('sum', 'separate', 'ties', 'lego'),
    'coefs': (0.1, 0.25, 0.4, 0.55, 0.7, 1.0, 1.5, 2.0),
    'density': 0.2,  # of TIES
    'basis': 1,  # directions of RMM: 62.5 % of the size of four LoRAs of rank 8
    'ranks': (4, 8, 16, 32),  # of LEGO and the truncated sum
  }


get_config = _variants.chooser(
  tiny, python, digits, texts, suite8, default='python'
)
