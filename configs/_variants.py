"""Parts of several configs: the choice of a variant, trainings, tasks."""

from collections.abc import Callable

import ml_collections

from wsl import tree

# Eight tasks of 28x28 images in the folder of a user, see wsl.data.folder.
SUITE8: dict[str, object] = {
  'data': 'data',
  'tasks': (
    *('mnist', 'fashion', 'animal', 'notmnist'),
    *('kannada', 'hoda', 'cifar10_grey', 'bangla'),
  ),
  'validation': 500,
  'seeds': 3,
  'base': {'examples': 100, 'steps': 300, 'batch_size': 128},
}

# The sweep of experiments in which the optimizer matters.
OPTIMIZERS: list[dict[str, object]] = [
  {'training.optimizer': 'sgd', 'training.learning_rate': 0.1},
  {'training.optimizer': 'adamw', 'training.learning_rate': 1e-3},
]


def suite() -> dict[str, object]:
  """Returns the model and training of a suite of tasks made from the digits."""
  return {
    'variant': '',
    'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
    'validation': 250,  # images of each task held out from training
    'at_once': 5,  # runs trained side by side by vmap
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
    'evaluation': {'batch_size': 50},  # fits the caches of a CPU
  }


def sgd(*, epochs: int, at_once: int, decay: float) -> dict[str, object]:
  """Returns the training of an experiment that uses SGD by default."""
  return {
    'optimizer': 'sgd',  # momentum 0.9, decay in the gradient; or 'adamw'
    'learning_rate': 0.1,  # the peak of a warm-up and cosine schedule
    'weight_decay': decay,
    'epochs': epochs,
    'batch_size': 64,
    'at_once': at_once,  # networks trained side by side by vmap
  }


def chooser(
  *variants: Callable[[], ml_collections.ConfigDict],
  default: str = 'digits',
) -> Callable[..., ml_collections.ConfigDict]:
  """Returns the ``get_config`` of a module of configs.

  Args:
    *variants: functions that build a config; their names are the variants.
    default: the variant that is taken where none is named.

  Returns:
    A function of a variant's name. It sets the field ``variant``, and raises
    ValueError for an unknown name.
  """
  named = {variant.__name__: variant for variant in variants}

  def get_config(variant: str = default) -> ml_collections.ConfigDict:
    if variant not in named:
      hint = tree.nearest(variant, list(named))
      raise ValueError(
        f"no variant '{variant}'{hint}: there are {', '.join(named)}"
      )
    config = named[variant]()
    config.variant = variant
    return config

  return get_config
