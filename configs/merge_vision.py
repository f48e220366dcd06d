"""Which merge of task experts retains most of their accuracy?

  python -m experiments.merge_vision --config=configs/merge_vision.py:VARIANT

tiny: half a minute, a test. Two tasks, two seeds, briefly trained.

digits: three minutes of a processor. Four tasks are made from scikit-learn's
digits: the images as they are (upright), rotated by 90 degrees (rotated), 1 - x
(inverted), and with their sixteen 2x2 blocks permuted (shuffled). MLP
64-128-128-128-128, five seeds. Rate and epochs maximise the validation accuracy
of the experts. Expect (test %, +- over seeds; all 35 methods: README):

  base 56.6 +- 1.7, average 73.6 +- 2.0, TIES 79.3 +- 3.0, Fisher 81.6 +- 1.2,
  task arithmetic 85.4 +- 2.1, Iso-C 90.1 +- 1.0, TSV-M 91.2 +- 0.8, RegMean
  92.2 +- 0.2, Twin-Merging 96.8 +- 0.3, joint training 97.4, experts 97.5

suite8: eight real tasks of 28x28 grey images, three seeds, from a folder of
yours: --config.data=FOLDER with the tasks below (see wsl.data.folder). About
20 minutes of processor time for each model, and 12 more for DOGE; --sweep runs
both, suite8,model=vit one. Rates and epochs are those of a first study.
Accuracies to expect are in experiments/README.md.
"""

import ml_collections

from configs import _variants

# Candidates for λ. The average, Fisher and RegMean have none, nor have methods
# with a scale of their own.
COEFS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)

# Densities, coefficients and seeds of the masks in the sweep of a variant.
_GRIDS = {
  'tiny': ((0.25, 0.5), (0.6, 1.0), 1),
  'digits': ((0.125, 0.25, 0.5, 0.75), (0.2, 0.4, 0.6, 0.8, 1.0, 1.25), 3),
}

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
# More, of the digits: a second or two each.
MORE = (
  *('breadcrumbs+sum', 'magmax', 'pcb', 'variance_corrected', 'opcm'),
  *('tsv_compress+sum', 'wudi', 'doge', 'localize_and_stitch'),
  *('regmean_plus', 'frank_wolfe', 'emr', 'dare+ties', 'della+sum', 'sce'),
  *('ram', 'ram_plus', 'model_stock', 'karcher', 'multislerp', 'knots'),
  *('twins', 'rmm'),
)


def digits() -> ml_collections.ConfigDict:
  """Four tasks made from the embedded digits."""
  config = _variants.suite()
  config |= {
    'tasks': ('upright', 'rotated', 'inverted', 'shuffled'),
    'seeds': 5,
    'merge_seed': 0,  # of random masks
    'statistics': {'examples': 256},  # unlabelled images for each expert
    'methods': METHODS + MORE,
    # Arguments by function; validation data select one value of a tuple.
    'arguments': {
      'ties': {'density': (0.2, 0.5, 0.8)},
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
      # Convolutions are averaged. As matrices [h * w * in, out] ('matrices':
      # 'kernel$') they are a point of validation accuracy worse.
      'tsv': {'otherwise': 'mean'},
      'iso_c': {'otherwise': 'mean'},
      'iso_cts': {'common': (0.5, 0.8), 'otherwise': 'mean'},
      'tsv_compress': {'otherwise': 'mean'},
      'breadcrumbs': {'density': (0.5, 0.8), 'outliers': 0.01},
      'pcb': {'density': (0.05, 0.2, 0.5)},
      'opcm': {'alpha': (0.5, 0.8), 'otherwise': 'mean'},
      'wudi': {'rate': (1e-5, 1e-4, 1e-3), 'otherwise': 'mean'},
      'doge': {
        'density': (0.3, 1.0),
        'norm': (0.5, 1.0, 2.0, 4.0),
        'otherwise': 'mean',
      },
      # Rows of a kernel [in, out] are the entries of one output.
      'della': {'density': (0.3, 0.6), 'epsilon': 0.15, 'axis': 0},
      'sce': {'select': (0.2, 0.5, 1.0)},
      'ram': {'threshold': (1e-5, 1e-3)},
      'ram_plus': {'threshold': (1e-5, 1e-3)},
      'multislerp': {'weights': ((1.0,) * 4,)},  # one candidate, equal weights
      'knots': {'method': 'ties', 'otherwise': 'mean'},
      'twins': {'density': 0.1, 'otherwise': 'mean'},
      'rmm': {'basis': (1, 2), 'rank': 16, 'otherwise': 'mean'},
      'localize_and_stitch': {'density': (0.1, 0.3, 0.5, 0.8)},
      'regmean_plus': {'shrink': (0.7, 0.9, 1.0)},
      'frank_wolfe': {
        'rate': (0.1, 1.0),
        'scale': (0.3, 0.6),
        'dialect': ('paper', 'official'),
      },
    },
    'coefs': {
      'default': COEFS,
      'mean': (1.0,),
      'fisher': (1.0,),
      'regmean': (1.0,),
      'tall_masks': (1.0,),
      **dict.fromkeys(('regmean_plus', 'frank_wolfe', 'emr'), (1.0,)),
      **dict.fromkeys(('wudi', 'doge', 'karcher', 'multislerp'), (1.0,)),
      **dict.fromkeys(('model_stock', 'twins', 'rmm'), (1.0,)),
    },
  }
  found = ml_collections.ConfigDict(config)
  # The leaves of each block, in the order of the network.
  found.models.mlp.blocks = ('block_0/', 'block_1/', 'block_2/', 'output/')
  return found


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
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
  config.models.mlp.blocks = ('block_0/', 'block_1/', 'output/')
  config.models.mlp.expert_rate = 5e-3
  config.coefs.default = (0.3, 0.6, 1.0)
  config.arguments.ties.density = (0.2, 0.5)
  return config


def suite8() -> ml_collections.ConfigDict:
  """Eight real tasks, from a folder of the user."""
  config = digits()
  config.update(
    {
      **_variants.SUITE8,
      'at_once': 1,
      'model': 'cnn',
      'experts': {'epochs': 4},
      'statistics': {'examples': 128},
    }
  )
  config.models = {
    'cnn': {
      'module': 'ResNet',
      'arguments': {},
      'expert_rate': 3e-4,
      'blocks': ('block_0/', 'block_1/', 'block_2/', 'block_3/', 'block_4/'),
    },
    'vit': {
      'module': 'ViT',
      'arguments': {'outputs': 256},
      'expert_rate': 5e-4,
      'blocks': (
        *('position|embedding/', 'block_0/', 'block_1/', 'block_2/'),
        '^norm/|output/',
      ),
    },
  }
  # DOGE leaves the base's convolutions, and the λ of WUDI is 1: for them,
  # convolutions may be matrices [h * w * in, out].
  config.arguments.multislerp.weights = ((1.0,) * 8,)
  config.arguments.doge.matrices = 'kernel$'
  config.arguments.wudi.matrices = (None, 'kernel$')
  return config


def sweep(variant: str = 'suite8') -> list[dict[str, object]]:
  """Returns the changed fields of each run of ``--sweep``.

  Args:
    variant: of the config. ``suite8`` has two models; the others compare merges
      of the same experts by density, coefficient and random masks.
  """
  if variant.startswith('suite8'):
    return [{'model': 'cnn'}, {'model': 'vit'}]
  densities, coefs, seeds = _GRIDS.get(variant, _GRIDS['digits'])
  found: list[dict[str, object]] = [
    {
      'methods': ('ties',),
      'arguments.ties.density': (d,),
      'coefs.default': (c,),
    }
    for d in densities
    for c in coefs
  ]
  return found + [
    {
      'methods': ('dare+sum',),
      'arguments.dare.rate': (1 - d,),
      'coefs.default': (c,),
      'merge_seed': seed,
    }
    for seed in range(seeds)
    for d in densities
    for c in coefs
  ]


_choose = _variants.chooser(tiny, digits, suite8)


def get_config(variant: str = 'digits') -> ml_collections.ConfigDict:
  """Returns the config of ``'VARIANT'`` or ``'VARIANT,model=NAME'``."""
  name, *rest = variant.split(',')
  config = _choose(name)
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
