"""The examples of a run: images and labels, or bytes and those that follow."""

from typing import NamedTuple

import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._shared import nets_training, one_task
from experiments._shared.texts import corpus, language


class Splits(NamedTuple):
  """Inputs and labels.

  Attributes:
    train: to train networks on.
    test: for evaluation.
  """

  train: nets_training.Examples
  test: nets_training.Examples


def read(config: ml_collections.ConfigDict) -> Splits:
  """Reads the images of one task, or the texts of several domains.

  Args:
    config: ``data`` and ``task`` of images; ``data``, ``domains``, ``length``,
      ``bytes`` and ``evaluation.windows`` of texts.

  Returns:
    Normalised images ``[N, h, w, c]`` with labels ``[N]``, or bytes ``[N, S]``
    with the bytes that follow.

  Raises:
    ValueError: naming the wrong field.
    FileNotFoundError: if the data is missing.
  """
  if is_text(config):
    found = corpus.load(config)
    # Windows are sorted by domain: mix them, for parts to hold all domains.
    train = np.random.default_rng(0).permutation(found.train)
    test = found.test.reshape(-1, found.test.shape[-1])
    return Splits(*(language.split(jnp.asarray(x)) for x in (train, test)))
  task = one_task.read(config)
  scale = one_task.statistics(task.train)
  return Splits(*(one_task.normal(split, *scale) for split in task))


def is_text(config: ml_collections.ConfigDict) -> bool:
  """Returns whether a run is about texts."""
  return 'domains' in config


def noun(config: ml_collections.ConfigDict) -> str:
  """Returns the name of the examples."""
  return 'windows' if is_text(config) else 'images'
