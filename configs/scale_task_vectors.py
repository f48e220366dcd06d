"""What is gained by a learned coefficient for each block of a task vector?

  python -m experiments.scale_task_vectors --config=FILE:VARIANT

with FILE = configs/scale_task_vectors.py. --config.settings="('addition',)"
runs only some of the settings.

tiny: half a minute, a test. Three tasks, two seeds, a few steps of training.

digits: three to six minutes on two cores. Eight tasks are transformations of
scikit-learn's digits; MLP 64-128-128-128-128, three seeds. The rates of
few_shot and partition maximise validation accuracy on two other seeds. Expect
(test %, +- standard deviation over seeds) base 54.8 +- 1.5, experts 97.5 +-
0.3; in the setting addition searched 74.9 +- 0.3, learned isotropic 75.9 +-
1.0, anisotropic 84.4 +- 0.3.

suite8: about ten minutes of processor time. Eight tasks of 28x28 grey images,
three seeds, an MLP of 0.15 M parameters, from a folder of yours:
--config.data=FOLDER with the tasks of SUITE8 (see wsl.data.folder). Expect base
55.9 +- 1.2, experts 83.9 +- 0.1; addition: searched 61.8 +- 0.2, isotropic 62.1
+- 0.7, anisotropic 64.4 +- 0.9.
"""

import ml_collections

from configs import _variants


def digits() -> ml_collections.ConfigDict:
  """Eight tasks made from the embedded digits."""
  config = _variants.suite()
  config |= {
    'tasks': (
      'upright',
      'rotated',
      'inverted',
      'shuffled',
      'mirrored',
      'turned',
      'striped',
      'rolled',
    ),
    'seeds': 3,
    'at_once': 4,
    # Experts that are linear in their weights; 0 epochs for none.
    'tangent': {'epochs': 20, 'rate': 1e-3},
    # Any subset of these.
    'settings': (
      'addition',
      'negation',
      'few_shot',
      'test_time',
      'partition',
    ),
    # One model for all tasks, from labelled validation images.
    'addition': {
      'methods': (
        'searched',
        'isotropic',
        'anisotropic',
        'tangent_searched',
        'tangent_anisotropic',
      ),
      'coefs': tuple(0.05 * i for i in range(21)),  # searched
      'rate': 3e-2,
      'weight_decay': 0.1,
      'epochs': 20,
      'batch_size': 16,  # of each task
    },
    # Unlearning of one task, from labelled validation images.
    'negation': {
      'methods': ('searched', 'isotropic', 'anisotropic'),
      'control': 'upright',
      'floor': 0.95,  # of the base's accuracy on the control
      'coefs': tuple(-0.05 * i for i in range(41)),  # searched
      'rate': 1e-2,
      'weight_decay': 0.1,
      'steps': 200,
      'every': 5,  # steps between evaluations on validation images
      'batch_size': 64,  # of each of the two tasks
    },
    # A target task from a few images and the vectors of the others.
    'few_shot': {
      'methods': (
        'isotropic',
        'anisotropic',
        'tip',
        'lp',
        'anisotropic_tip',
        'anisotropic_lp',
        'partition',
        'probe',
        'lora',
        'lora_partition',
        'full',
      ),
      'shots': (1, 2, 4, 8, 16),  # of each class
      'cells': 20,  # of 'partition', for each leaf
      'steps': 100,
      'batch_size': 64,
    },
    # Unlabelled test images: one model for all tasks, or one target.
    'test_time': {
      'methods': (
        'adamerging_task',
        'adamerging_leaf',
        'adamerging_plus',
        'entropy',
        'ufm',
      ),
      'adamerging': {
        'start': 0.3,
        'rate': 1e-3,
        'steps': 500,
        'batch_size': 16,  # of each task
        'density': 0.2,  # of the vectors of 'adamerging_plus'
      },
      'target': {
        'rate': 1e-2,
        'weight_decay': 0.1,
        'epochs': 10,
        'batch_size': 48,
        'exponent': 0.5,  # of UFM's targets, as printed
      },
    },
    # As few_shot, with increasing numbers of coefficients.
    'partition': {
      'methods': ('lora', 'probe', 'full'),  # LoRA of the same sizes
      'cells': (1, 5, 20, 80, 'full'),
      'shots': (4, 64),
      'steps': 100,
      'batch_size': 64,
    },
    # Peak learning rates of few_shot and partition.
    'rates': {
      'coefs': 1e-1,
      'entry': 1e-1,
      'lora': 1e-2,
      'probe': 3e-3,
      'full': 1e-3,
    },
  }
  return ml_collections.ConfigDict(config)


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.update(
    {
      'tasks': ('upright', 'inverted', 'striped'),
      'validation': 449,
      'seeds': 2,
      'at_once': 2,
      'base': {'steps': 40, 'batch_size': 32, 'learning_rate': 3e-3},
      'experts': {'epochs': 2, 'batch_size': 128},
      'tangent': {'epochs': 0, 'rate': 5e-3},
      'evaluation': {'batch_size': 449},
      'addition': {
        'methods': ('searched', 'anisotropic'),
        'coefs': (0.2, 0.5, 0.8),
        'epochs': 1,
      },
      'negation': {
        'methods': ('searched', 'anisotropic'),
        'coefs': (0.0, -0.3, -0.6),
        'steps': 6,
        'every': 3,
      },
      'few_shot': {
        'methods': ('anisotropic', 'lora'),
        'shots': (1, 2),
        'cells': 3,
        'steps': 10,
        'batch_size': 10,
      },
      'partition': {
        'methods': ('lora',),
        'cells': (2,),
        'shots': (2,),
        'steps': 10,
        'batch_size': 10,
      },
    }
  )
  with config.unlocked():
    config.models.mlp.arguments = {
      'widths': (32,),
      'outputs': 32,
      'norm': False,
    }
  config.models.mlp.expert_rate = 5e-3
  config.test_time.methods = ('adamerging_leaf', 'ufm')
  config.test_time.adamerging.steps = 5
  config.test_time.target.epochs = 1
  return config


def suite8() -> ml_collections.ConfigDict:
  """Eight real tasks, from a folder of the user."""
  config = digits()
  config.update(
    {
      **_variants.SUITE8,
      'at_once': 3,
      'experts': {'epochs': 6},
      'tangent': {'epochs': 0},
      'addition': {'methods': ('searched', 'isotropic', 'anisotropic')},
      'few_shot': {'shots': (1, 4, 16)},
      'partition': {'shots': (16,)},
    }
  )
  config.negation.control = 'mnist'
  config.test_time.target.epochs = 5
  return config


get_config = _variants.chooser(tiny, digits, suite8)
