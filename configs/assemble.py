"""Is a deep network better trained whole, or module by module?

  python -m experiments.assemble --config=configs/assemble.py:VARIANT

tiny: seconds, a test.

digits: about four minutes on two free cores. A ViT of twelve blocks and 60,000
parameters, in four modules, on scikit-learn's digits; three seeds. Expect (test
%, +- over seeds; a budget of 1 is 400 steps of the whole network, both methods
spend the same to a per cent; side by side is what the longest jobs take):

  budget                     0.25          0.5           1
  end to end                 96.7 +- 1.2   97.5 +- 0.5   98.1 +- 0.6
  Deep Incubation            90.9 +- 0.3   95.5 +- 1.5   97.2 +- 1.3
    side by side             0.17          0.34          0.67
    before fine-tuning       33.3 +- 4.6   51.8 +- 5.1   70.2 +- 5.5
    its meta model alone     95.0 +- 0.7   97.3 +- 0.0   97.6 +- 0.1

  training images            10 %          30 %          100 %
  end to end                 84.4 +- 1.2   93.4 +- 0.9   98.1 +- 0.6
  Deep Incubation            84.9 +- 0.2   92.4 +- 1.6   97.2 +- 1.3

At this scale modules are not the better way. At equal compute incubation is 5.8
+- 1.0 and 1.9 +- 1.2 points below at the small budgets, in every seed, and
within the spread at the full one. With a tenth of the images it is level: the
claim about data is neither shown nor refuted. Its meta model of four blocks
alone does as well, so the task does not need the depth that makes training
whole hard in the paper. What holds is the time: with a machine for each module
the longest jobs take two thirds of the compute, for 0.9 +- 1.7 points less.
With --config.learning_rate=0.01: 97.4 +- 0.5 and 97.1 +- 0.4 at the full
budget, and 86.5 +- 0.5 before fine-tuning.

The zoo, MLPs of 4, 6 and 8 blocks (98.5, 98.0, 96.9 %), is cut at the same
places in all seeds. Reassembled, joined by least squares, then tuned for 50
steps, against the same network from nothing (test %, +- over seeds):

  chosen by NASWOT              96.5 +- 0.9   97.5 +- 0.3   86.7 +- 7.8
  chosen by held-out accuracy   95.8 +- 0.3   96.7 +- 1.1   80.8 +- 3.6
  chosen at random              96.4 +- 0.8   97.0 +- 0.9   84.5 +- 6.5

Parts of others save most of the training; which score chooses them makes no
clear difference among so few. None is better than the zoo's best network at its
cost: the budget is one of blocks, and the maps between them come on top.

images: the same on 28x28 images, from a folder of yours: --config.data=FOLDER
with the task below (see wsl.data.folder). For a GPU, or for patience.

--sweep runs the chosen variant at three learning rates.
"""

import ml_collections

from configs import _variants


def get_config(variant: str = 'digits') -> ml_collections.ConfigDict:
  """Returns the config of a variant."""
  return _variants.choose(VARIANTS, variant)


def sweep() -> list[dict[str, object]]:
  """Returns what ``--sweep`` runs, as fields that differ."""
  return [{'learning_rate': rate} for rate in (1e-3, 3e-3, 1e-2)]


def digits() -> ml_collections.ConfigDict:
  """A vision transformer of twelve blocks on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # a turn of the digits, or a task in that folder
      'held_out': 200,  # training images that no network learns from
      'seeds': 3,
      'seed': 0,
      'at_once': 12,  # runs trained side by side by vmap
      'model': {
        # A public model of wsl.models and its arguments.
        'module': 'ViT',
        'arguments': {
          'outputs': 10,
          'patch': 4,
          'width': 24,
          'depth': 12,
          'heads': 3,
        },
      },
      'modules': 4,  # a divisor of the depth; the meta model has as many blocks
      'steps': 400,  # of the whole network, at the full budget
      'batch_size': 64,
      'learning_rate': 3e-3,  # the peak: a rise, then a cosine to zero
      'budgets': (0.25, 0.5, 1.0),  # of compute; all training images
      'fractions': (0.1, 0.3, 1.0),  # of training images; the full budget
      # What the stages of the incubation get of a budget.
      'shares': {'meta': 0.25, 'modules': 0.45, 'fine_tuning': 0.3},
      'evaluation': {'batch_size': 449},
      # A zoo to reassemble; no seeds leave it out.
      'zoo': {
        'seeds': 3,
        'networks': {
          'wide': {
            'module': 'MLP',
            'arguments': {'widths': (128,) * 4, 'outputs': 10},
          },
          'middle': {
            'module': 'MLP',
            'arguments': {'widths': (96,) * 6, 'outputs': 10},
          },
          'deep': {
            'module': 'MLP',
            'arguments': {'widths': (64,) * 8, 'outputs': 10},
          },
        },
        'training': {
          'optimizer': 'adamw',
          'learning_rate': 3e-3,
          'weight_decay': 1e-2,
          'epochs': 20,
          'batch_size': 64,
          'at_once': 3,
        },
        'blocks': 3,  # of each network, and of a reassembled one
        'slack': 0.2,  # how far a block may exceed an equal share
        'budget': 0.7,  # FLOPs of the blocks, in those of the largest network
        # Training images without labels: for CKA, adapters and NASWOT.
        'statistics': {'examples': 1000, 'batch_size': 64},
        'fine_tuning': {'steps': 50, 'batch_size': 64, 'learning_rate': 1e-3},
      },
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """Seconds: does everything work?"""
  config = digits()
  config.seeds, config.modules, config.steps = 2, 2, 40
  with config.unlocked():
    # Blocks as wide as an image has pixels, so that they are all alike.
    arguments = {'widths': (64,) * 4, 'outputs': 10, 'norm': False}
    config.model = {'module': 'MLP', 'arguments': arguments}
    del config.zoo.networks['middle']
  config.budgets, config.fractions = (1.0,), (0.1, 1.0)
  config.zoo.seeds, config.zoo.blocks = 1, 2
  for network in config.zoo.networks.values():
    network.arguments.widths = network.arguments.widths[:2]
    with network.unlocked():
      network.arguments.norm = False
  config.zoo.training.epochs = 2
  config.zoo.fine_tuning.steps = 4
  config.zoo.statistics.examples = 128
  return config


def images() -> ml_collections.ConfigDict:
  """The same on 28x28 images; the data folder is the user's."""
  config = digits()
  config.data, config.task = 'data', 'fashion'
  config.held_out, config.steps, config.at_once = 500, 600, 4
  config.model.arguments.update({'patch': 7, 'width': 48, 'heads': 4})
  config.evaluation.batch_size = 500
  config.zoo.training.update({'epochs': 10, 'batch_size': 100})
  return config


VARIANTS = {'tiny': tiny, 'digits': digits, 'images': images}
