"""Is a deep network better trained whole, or module by module?

  python -m experiments.assemble --config=configs/assemble.py:VARIANT

tiny: seconds, a test.

digits: about four minutes on two free cores. A ViT of twelve blocks and 60,000
parameters, in four modules, on scikit-learn's digits; three seeds. Expect (test
%, +- over seeds; a budget of 1 is 400 steps of the whole network, equal for
both methods within a per cent; in parallel is the compute of the longest jobs):

  budget                     0.25          0.5           1
  end to end                 96.7 +- 1.2   97.5 +- 0.5   98.1 +- 0.6
  Deep Incubation            90.9 +- 0.3   95.5 +- 1.5   97.2 +- 1.3
    in parallel              0.17          0.34          0.67
    before fine-tuning       33.3 +- 4.6   51.8 +- 5.1   70.2 +- 5.5
    its meta model alone     95.0 +- 0.7   97.3 +- 0.0   97.6 +- 0.1

  training images            10 %          30 %          100 %
  end to end                 84.4 +- 1.2   93.4 +- 0.9   98.1 +- 0.6
  Deep Incubation            84.9 +- 0.2   92.4 +- 1.6   97.2 +- 1.3

At this scale modules are not better. At equal compute incubation is 5.8 +- 1.0
and 1.9 +- 1.2 points lower at the small budgets, in every seed, and within the
spread at the full one. With a tenth of the images both are equal: the claim
about data is neither confirmed nor refuted. The meta model of four blocks is as
accurate, so the task does not need the depth that makes end-to-end training
hard in the paper. The saving of time is confirmed: with a machine for each
module the longest jobs take two thirds of the compute, for 0.9 +- 1.7 points
less. With --config.learning_rate=0.01: 97.4 +- 0.5 and 97.1 +- 0.4 at the full
budget, and 86.5 +- 0.5 before fine-tuning.

The zoo, MLPs of 4, 6 and 8 blocks (98.5, 98.0, 96.9 %), is partitioned at the
same positions in all seeds. Joined by least squares; fine-tuned for 50 steps;
the same network from scratch (test %, +- over seeds):

  chosen by NASWOT              96.5 +- 0.9   97.6 +- 0.2   86.7 +- 7.8
  chosen by held-out accuracy   95.8 +- 0.3   96.7 +- 1.1   80.8 +- 3.6
  chosen at random              96.4 +- 0.8   97.1 +- 1.0   84.5 +- 6.5

Pretrained blocks save most of the training; among so few candidates the score
makes no clear difference. None is better than the best network of the zoo at
its cost, since the budget excludes the maps between blocks.

images: the same on 28x28 images, from a folder of yours: --config.data=FOLDER
with the task below (see wsl.data.folder). Slow without a GPU.

--sweep runs the variant at three learning rates.
"""

import ml_collections

from configs import _variants


def digits() -> ml_collections.ConfigDict:
  """A vision transformer of twelve blocks on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # of the digits, or a task in that folder
      'held_out': 200,  # training images that no network is trained on
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
      # Shares of the budget of the stages of the incubation.
      'shares': {'meta': 0.25, 'modules': 0.45, 'fine_tuning': 0.3},
      'evaluation': {'batch_size': 449},
      # A zoo to reassemble; 0 seeds skip it.
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
        'slack': 0.2,  # by which a block may exceed an equal share
        'budget': 0.7,  # FLOPs of the blocks, relative to the largest network
        # Training images without labels: for CKA, adapters and NASWOT.
        'statistics': {'examples': 1000, 'batch_size': 64},
        'fine_tuning': {'steps': 50, 'batch_size': 64, 'learning_rate': 1e-3},
      },
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
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
  """The same on 28x28 images, from a folder of the user."""
  config = digits()
  config.data, config.task = 'data', 'fashion'
  config.held_out, config.steps, config.at_once = 500, 600, 4
  config.model.arguments.update({'patch': 7, 'width': 48, 'heads': 4})
  config.evaluation.batch_size = 500
  config.zoo.training.update({'epochs': 10, 'batch_size': 100})
  return config


def sweep() -> list[dict[str, object]]:
  """Returns the changed fields of each run of ``--sweep``."""
  return [{'learning_rate': rate} for rate in (1e-3, 3e-3, 1e-2)]


get_config = _variants.chooser(tiny, digits, images)
