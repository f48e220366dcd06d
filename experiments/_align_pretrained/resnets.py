"""Residual networks of CIFAR-10: stored ones, cut to one depth."""

import functools
import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from experiments._align_pretrained import stored_files
from experiments._run import records
from experiments._shared import (
  batches,
  nets,
  nets_training,
  one_task,
  side_by_side,
)
from wsl import align, landscape, models, train, types

# Of the pixels that the stored networks were trained on.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Source(NamedTuple):
  """Stored networks by depth, and images.

  Attributes:
    config: of the run.
    net: the network of the depth of the pairs.
    stored: variables by depth.
    fit: training images and their labels.
    test: the same.
  """

  config: ml_collections.ConfigDict
  net: nets.Net
  stored: dict[int, types.Params]
  fit: nets_training.Examples
  test: nets_training.Examples

  @property
  def apply_fn(self) -> Any:
    """The function of the networks."""
    return self.net.apply_fn

  @property
  def inputs(self) -> types.Array:
    """Test images."""
    return self.test[0]

  def line(self, a: types.Params, b: types.Params) -> dict[str, Any]:
    """Measures loss and error on a line, moments reset at each point."""
    found: dict[str, list[float]] = {'t': [], 'loss': [], 'error': []}
    for t in np.linspace(0, 1, self.config.points).tolist():
      params = reset(self, landscape.interpolate(a, b, t))
      means = _evaluate(self.net.apply_fn, params, self.test)
      found['t'].append(t)
      found['loss'].append(float(means.loss))
      found['error'].append(1 - float(means.accuracy))
    return found


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(
  apply_fn: Any, params: types.Params, test: nets_training.Examples
) -> Any:
  return train.evaluate(apply_fn, params, test, batch_size=100)


def load(config: ml_collections.ConfigDict) -> Source:
  """Reads the networks that the pairs name, and images."""
  depths = list(dict.fromkeys(itertools.chain(*config.pairs)))
  folder = pathlib.Path(config.data_dir)
  stored = {
    d: stored_files.read(
      folder / config.weights / f'cifar_resnet{d}.npz',
      'weights/cifar_resnetDEPTH.npz',
      models.cifar_resnet_from_torch,
    )
    for d in depths
  }
  task = one_task.read(
    ml_collections.ConfigDict({'data': config.data_dir, 'task': config.task})
  )
  scaled = [split._replace(x=split.x / 255) for split in task]
  fit, test = (one_task.normal(split, _MEAN, _STD) for split in scaled)
  test = jax.tree.map(lambda x: x[: config.images], test)
  module = models.CifarResNet(depth=min(depths))
  return Source(config, nets.build(module, fit[0][:1]), stored, fit, test)


def pairs(
  source: Source, out: records.Run
) -> dict[str, tuple[types.Params, types.Params]]:
  """Returns pairs of networks of the smallest depth, the deeper ones cut."""
  least = min(source.stored)
  found = {}
  for depth, variables in source.stored.items():
    if depth == least:
      found[depth] = variables
    else:
      tune = functools.partial(tuned, source, cut(variables, depth, least))
      found[depth] = out.arrays(f'cut {depth}', tune)
  return {f'{a}-{b}': (found[a], found[b]) for a, b in source.config.pairs}


def cut(variables: types.Params, depth: int, least: int) -> types.Params:
  """Leaves out blocks of each stage, evenly: the first one widens it."""
  many, few = depth // 6, least // 6
  kept = [round(i * (many - 1) / (few - 1)) for i in range(few)]
  places = {
    f'block_{few * s + i}': f'block_{many * s + k}'
    for s in range(3)
    for i, k in enumerate(kept)
  }

  def one(collection: types.Params) -> types.Params:
    rest = {k: v for k, v in collection.items() if not k.startswith('block_')}
    return rest | {to: collection[place] for to, place in places.items()}

  return {name: one(collection) for name, collection in variables.items()}


def tuned(source: Source, variables: types.Params) -> types.Params:
  """Trains a cut network on the training images, and resets its moments."""
  config = source.config.tuning
  moments = {'batch_stats': variables['batch_stats']}
  trained = side_by_side.advance_all(
    'tuning',
    functools.partial(nets_training.loss, source.net),
    jax.tree.map(lambda x: x[None], variables['params']),
    jax.random.split(jax.random.key(source.config.seed), 1),
    (moments, source.fit),
    nets_training.everything,
    steps=config.steps,
    batch_size=config.batch_size,
    rate=config.learning_rate,
    at_once=None,
  )
  weights = side_by_side.pick(trained, 0)
  return reset(source, {**moments, 'params': weights})


def reset(source: Source, params: types.Params) -> types.Params:
  """Resets running moments to those of some training images."""
  assert source.net.update_fn is not None
  few = source.fit[0][: source.config.statistics]
  moments = align.reset_batch_stats(
    jax.tree_util.Partial(source.net.update_fn, params),
    params['batch_stats'],
    batches.of_images(few, 100, whole=True),
  )
  return {**params, 'batch_stats': moments}
