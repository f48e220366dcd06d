"""What stands between two networks trained from different seeds?

  python -m experiments.align_barrier --config=configs/align_barrier.py:VARIANT

tiny: seconds, a test. Two pairs of small networks, hardly trained.

digits: a minute on two cores. Three pairs of MLPs 64-128-128-128-10 on
scikit-learn's digits.

mnist_mlp: MLPs 784-512-512-512-10 on MNIST, from a folder of yours:
--config.data=FOLDER with a task 'mnist' (see wsl.data.folder).

cifar_resnet: residual networks with batch normalisation on CIFAR-10 in
colours: --config.data=FOLDER with a task 'cifar10_rgb'. For a GPU, or for
patience.

How networks were trained decides how far apart they come to lie. --sweep runs
the chosen variant with SGD and with AdamW.
"""

import ml_collections

from wsl import tree


def get_config(variant: str = 'digits') -> ml_collections.ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    hint = tree.nearest(variant, list(VARIANTS))
    raise ValueError(
      f"no variant '{variant}'{hint}: there are {', '.join(VARIANTS)}"
    )
  config = VARIANTS[variant]()
  config.variant = variant
  return config


def sweep() -> list[dict[str, object]]:
  """Returns what ``--sweep`` runs, as fields that differ."""
  return [
    {'training.optimizer': 'sgd', 'training.learning_rate': 0.1},
    {'training.optimizer': 'adamw', 'training.learning_rate': 1e-3},
  ]


def digits() -> ml_collections.ConfigDict:
  """MLPs on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'digits',  # in that folder
      'pairs': 3,
      'seed': 0,
      'model': {
        # A public model of wsl.models and its arguments.
        'module': 'MLP',
        'arguments': {'widths': (128, 128, 128), 'outputs': 10, 'norm': False},
      },
      'training': {
        'optimizer': 'sgd',  # momentum 0.9, decay in the gradient; or 'adamw'
        'learning_rate': 0.1,  # the peak: a rise, then a cosine to zero
        'weight_decay': 1e-4,
        'epochs': 30,
        'batch_size': 64,
        'at_once': 6,  # networks trained side by side by vmap
      },
      # Public functions of wsl.align that find a permutation, and arguments.
      'methods': ('weight_matching', 'activation_matching'),
      'arguments': {},
      'points': 25,  # on each path, an odd number: the middle is one of them
      'repair': {'points': 13},  # the same, where each point is corrected
      'evaluation': {'batch_size': 500},
      # Training images without labels: for activations and their moments.
      'statistics': {'examples': 1000, 'batch_size': 250},
      'threshold': 0.3,  # of singular values, as a fraction of the largest
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """Seconds: does everything work?"""
  config = digits()
  config.pairs = 2
  config.model.arguments.widths = (32, 24)
  config.training.epochs = 4
  config.points = 5
  config.repair.points = 3
  config.statistics = {'examples': 256, 'batch_size': 128}
  return config


def mnist_mlp() -> ml_collections.ConfigDict:
  """The MLP of the re-basin papers; the data folder is the user's."""
  config = digits()
  config.data, config.task = 'data', 'mnist'
  config.model.arguments.widths = (512, 512, 512)
  config.training.batch_size = 100
  config.training.at_once = 1
  return config


def cifar_resnet() -> ml_collections.ConfigDict:
  """A residual network with batch normalisation."""
  config = digits()
  config.data, config.task = 'data', 'cifar10_rgb'
  with config.unlocked():
    config.model = {
      'module': 'ResNet',
      'arguments': {
        'outputs': 10,
        'widths': (64, 128, 256),
        'depth': 1,
        'stem': 3,
        'dense': (),
        'pool': 'mean',
        'norm': 'batch',
      },
    }
  config.training.update(
    {'weight_decay': 5e-4, 'batch_size': 100, 'at_once': 1}
  )
  config.points, config.repair.points = 11, 11
  return config


VARIANTS = {
  'tiny': tiny,
  'digits': digits,
  'mnist_mlp': mnist_mlp,
  'cifar_resnet': cifar_resnet,
}
