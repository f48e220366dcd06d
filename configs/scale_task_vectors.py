"""A coefficient for each block of a task vector: what does learning it give?

  python -m experiments.scale_task_vectors --config=FILE:VARIANT

with FILE = configs/scale_task_vectors.py. --config.settings="('addition',)"
runs some of the settings only.

tiny: half a minute, a test. Three tasks, two seeds, hardly trained.

digits: six minutes of processor time, so three to six of two cores.
Eight tasks are made from scikit-learn's digits: as they are, turned by 90 and
by 180 degrees, mirrored, inverted, every second row inverted, rolled by half an
image, and with their 2x2 blocks in other places. MLP 64-128-128-128-128, three
seeds. The rates of few_shot and partition were chosen by validation accuracy on
two other seeds, one for each method; no run of the table looks at validation
labels there. Expect (test %, +- standard deviation over seeds):

  base 54.8 +- 1.5, experts 97.5 +- 0.3
  addition (and pairwise disentanglement error): searched 74.9 +- 0.3 (6.1),
    learned isotropic 75.9 +- 1.0 (6.1), anisotropic 84.4 +- 0.3 (5.0); in the
    tangent space searched 74.9 +- 0.6 (6.4), anisotropic 85.8 +- 1.2 (4.3)
  negation (target, control; base 55.0, 53.4): searched 25.5 +- 6.0, 51.8;
    isotropic 26.1, 52.0; anisotropic 24.8 +- 6.6, 52.2
  few_shot, 1 and 16 images of each class: isotropic (7 numbers) 53.5, 57.9;
    anisotropic (98) 54.8, 67.5; LoRA (256) 55.2, 64.1; probe (1290) 64.3, 82.1;
    anisotropic x 20 cells (1960) 64.9, 86.5; LoRA (1920) 62.1, 87.5;
    fine-tuning 66.4, 91.2
  test_time: AdaMerging task-wise 72.9 +- 2.3, layer-wise 78.6 +- 1.5, ++ 69.5
    +- 0.6; one target from base 54.8: entropy 44.4 +- 4.9, UFM 56.1 +- 2.1
  partition, 64 images of each class: K = 1 68.7, 5 83.1, 20 91.0, 80 94.0, each
    entry 96.8; LoRA at as many numbers 64.8, 77.2, 92.4, 95.9; fine-tuning 95.9

suite8: eight real tasks of 28x28 grey images, three seeds, an MLP of 0.15 M,
from a folder of yours: --config.data=FOLDER with the tasks below (see
wsl.data.folder). About ten minutes of processor time; rates are the digits'.

  base 55.9 +- 1.2, experts 83.9 +- 0.1
  addition: searched 61.8 +- 0.2 (11.0), isotropic 62.1 +- 0.7 (10.9),
    anisotropic 64.4 +- 0.9 (10.7)
  negation (base 54.0, 69.2): searched 34.8 +- 5.3, 65.4;
    isotropic 34.8 +- 5.1, 65.4; anisotropic 34.7 +- 4.8, 65.4
  few_shot, 1 and 16 images: isotropic 49.6, 54.4; anisotropic 47.5, 57.5;
    LoRA (256) 50.3, 56.9; probe 53.8, 61.5; x 20 50.3, 62.9;
    LoRA (1680) 50.1, 62.1; fine-tuning 46.8, 69.9
  test_time: AdaMerging task-wise 62.1 +- 1.1, layer-wise 62.5 +- 0.5,
    ++ 61.5 +- 0.8; entropy 51.7 +- 0.1, UFM 54.3 +- 1.4
  partition, 16 images: K = 1 57.6, 5 60.2, 20 62.8, 80 66.0, each entry
    68.5; LoRA 57.3, 59.1, 62.0, 66.5; fine-tuning 69.9
"""

import ml_collections

from configs import _variants


def get_config(variant: str = 'digits') -> ml_collections.ConfigDict:
  """Returns the config of a variant."""
  return _variants.choose(VARIANTS, variant)


def digits() -> ml_collections.ConfigDict:
  """Eight tasks made from the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
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
      'validation': 250,  # images of each task held out from training
      'seeds': 3,
      'at_once': 4,  # runs trained side by side by vmap; the others wait
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
      'experts': {'epochs': 20, 'batch_size': 64},
      # Experts that are linear in their weights; 0 epochs: none.
      'tangent': {'epochs': 20, 'rate': 1e-3},
      'evaluation': {'batch_size': 50},
      # Any of these; a setting that is left out costs nothing.
      'settings': (
        'addition',
        'negation',
        'few_shot',
        'test_time',
        'partition',
      ),
      # One model of all tasks, taught by labelled validation images.
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
      # One task forgotten, the control kept; labelled validation images.
      'negation': {
        'methods': ('searched', 'isotropic', 'anisotropic'),
        'control': 'upright',
        'floor': 0.95,  # of the base's accuracy on the control
        'coefs': tuple(-0.05 * i for i in range(41)),  # searched
        'rate': 1e-2,
        'weight_decay': 0.1,
        'steps': 200,
        'every': 5,  # steps between looks at validation accuracy
        'batch_size': 64,  # of each of the two tasks
      },
      # A target task from a few training images and the others' vectors.
      'few_shot': {
        'methods': (
          'isotropic',
          'anisotropic',
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
      # Unlabelled test images: one model of all tasks, or a target task.
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
      # As few_shot, with more and more coefficients.
      'partition': {
        'methods': ('lora', 'probe', 'full'),  # LoRA at as many numbers
        'cells': (1, 5, 20, 80, 'full'),
        'shots': (4, 64),
        'steps': 100,
        'batch_size': 64,
      },
      # Peak learning rates of what few images train.
      'rates': {
        'coefs': 1e-1,
        'entry': 1e-1,
        'lora': 1e-2,
        'probe': 3e-3,
        'full': 1e-3,
      },
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """Seconds: does everything work?"""
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
      'at_once': 3,
      'base': {'examples': 100, 'steps': 300, 'batch_size': 128},
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


VARIANTS = {'tiny': tiny, 'digits': digits, 'suite8': suite8}
