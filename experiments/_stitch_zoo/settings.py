"""A zoo of residual networks of several depths: config, images, positions."""

import pathlib
from typing import NamedTuple

import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._run import checks
from experiments._shared import batches, nets_training, one_task
from wsl import data, stitch, types

PARTS = 9  # cuts are counted in ninths of the depth


class Setting(NamedTuple):
  """Config and data of a run.

  Attributes:
    config: of the run.
    train: images ``[N, h, w, c]``, normalised, and labels ``[N]``.
    test: the same.
  """

  config: ml_collections.ConfigDict
  train: nets_training.Examples
  test: nets_training.Examples


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  task = one_task.read(config)
  images = Setting(config, *(_normal(config.pixels, split) for split in task))
  _check(config, images)
  return images


def _check(config: ml_collections.ConfigDict, images: Setting) -> None:
  """Checks a config against the data, and that the weights exist."""
  count, tests = len(images.train[1]), len(images.test[1])
  fit, adapters = config.fit, config.adapters
  checks.sizes(
    {
      'fit.examples': (fit.examples, 1, count),
      'fit.batch_size': (fit.batch_size, 1, fit.examples),
      'adapters.examples': (adapters.examples, 1, count),
      'adapters.epochs': (adapters.epochs, 1, None),
      'adapters.batch_size': (adapters.batch_size, 1, adapters.examples),
      'evaluation.examples': (config.evaluation.examples, 1, tests),
      'evaluation.batch_size': (config.evaluation.batch_size, 1, None),
    }
  )
  _check_choices(config)
  if config.weights:
    for depth in config.depths:
      if not weights_file(config, depth).exists():
        raise FileNotFoundError(
          f'no weights at {weights_file(config, depth)}: --config.weights='
          'FOLDER with cifar_resnetDEPTH.npz'
        )
  else:
    nets_training.check(config.training, count)


def _check_choices(config: ml_collections.ConfigDict) -> None:
  """Checks cuts, depths, pairs and kinds of adapters."""
  for cut in config.cuts:
    if cut not in range(1, PARTS + 1):
      raise ValueError(f'cuts: {cut} is none of the ninths 1 .. {PARTS}')
  if len(set(config.depths)) < 2 or not config.cuts:
    raise ValueError('depths, cuts: give two depths or more, and a cut')
  for depth in config.depths:
    if depth < 8 or depth % 6 != 2:
      raise ValueError(f'depths: depth={depth}: expected 6 n + 2, such as 20')
  for bottom, top in config.close:
    for depth in (bottom, top):
      if depth not in config.depths:
        raise ValueError(f'close: no depth {depth} among {list(config.depths)}')
  for kind in config.kinds:
    stitch.fit(jnp.zeros((2, 1)), jnp.zeros((2, 1)), kind=kind)


def _normal(
  pixels: ml_collections.ConfigDict, split: data.Split
) -> nets_training.Examples:
  """Scales pixels to 0 .. 1, then normalises each channel."""
  scaled = data.Split(split.x.astype(np.float64) / pixels.range, split.y)
  return one_task.normal(scaled, pixels.mean, pixels.std)


def describe(setting: Setting) -> str:
  """Returns networks and numbers of images in one line."""
  config = setting.config
  return (
    f'{", ".join(map(name_of, config.depths))}; {config.fit.examples} images '
    f'without labels to fit, {config.evaluation.examples} to test'
  )


def weights_file(config: ml_collections.ConfigDict, depth: int) -> pathlib.Path:
  """Returns the file of the pretrained weights of a depth."""
  return pathlib.Path(config.weights) / f'cifar_resnet{depth}.npz'


def name_of(depth: int) -> str:
  """Returns the name of a network."""
  return f'ResNet-{depth}'


def fit_batches(setting: Setting) -> list[types.Array]:
  """Returns the images, without labels, that adapters are fitted to."""
  config = setting.config.fit
  return batches.of_images(
    setting.train[0][: config.examples], config.batch_size
  )


def position(depth: int, cut: int) -> int:
  """Returns the block after which a network of three stages is cut.

  The same ninth of any two depths is in the same stage, so that widths and
  resolutions agree.

  Args:
    depth: layers, ``6 n + 2``.
    cut: ninths of the depth, 1 .. 9.

  Returns:
    The position, 1 .. 3 n.

  Example:
    >>> [position(20, cut) for cut in range(1, 10)]
    [1, 2, 3, 4, 5, 6, 7, 8, 9]
    >>> [position(8, cut) for cut in range(1, 10)]
    [1, 1, 1, 2, 2, 2, 3, 3, 3]
  """
  # depth = 6 n + 2: three stages of n blocks, three ninths in each stage.
  count = depth // 6
  stage, within = divmod(cut - 1, 3)
  return count * stage + max(1, round(count * (within + 1) / 3))
