"""What configs share: the choice of a variant, and lists used by several."""

from collections.abc import Callable

import ml_collections

from wsl import tree

# Tasks of 28x28 images in the folder of a user, see wsl.data.folder.
SUITE8 = (
  *('mnist', 'fashion', 'animal', 'notmnist'),
  *('kannada', 'hoda', 'cifar10_grey', 'bangla'),
)

# The sweep of experiments in which the optimizer matters.
OPTIMIZERS: list[dict[str, object]] = [
  {'training.optimizer': 'sgd', 'training.learning_rate': 0.1},
  {'training.optimizer': 'adamw', 'training.learning_rate': 1e-3},
]


def chooser(
  *variants: Callable[[], ml_collections.ConfigDict],
) -> Callable[..., ml_collections.ConfigDict]:
  """Returns the ``get_config`` of a module of configs.

  Args:
    *variants: functions that build a config; their names are the variants.

  Returns:
    A function of a variant's name, ``'digits'`` by default. It sets the field
    ``variant``, and raises ValueError for an unknown name.
  """
  named = {variant.__name__: variant for variant in variants}

  def get_config(variant: str = 'digits') -> ml_collections.ConfigDict:
    if variant not in named:
      hint = tree.nearest(variant, list(named))
      raise ValueError(
        f"no variant '{variant}'{hint}: there are {', '.join(named)}"
      )
    config = named[variant]()
    config.variant = variant
    return config

  return get_config
