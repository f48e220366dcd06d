"""Networks of one task that differ in their seeds: data, training, cuts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from experiments._run import checks
from experiments._shared import nets, nets_training, one_task, side_by_side
from wsl import models, stitch, tree, types


class Setting(NamedTuple):
  """Config, data and model of a run.

  Attributes:
    config: of the run.
    images: normalised images and labels.
    module: the Flax module of all networks.
  """

  config: ml_collections.ConfigDict
  images: one_task.Images
  module: Any


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  module = nets.find(config.model)
  images = one_task.load(config)
  count = len(images.train[1])
  nets_training.check(config.training, count)
  checks.sizes(
    {
      'networks': (config.networks, 2, None),
      'fit.batch_size': (config.fit.batch_size, 1, config.held_out),
      'adapters.steps': (config.adapters.steps, 1, None),
      'adapters.batch_size': (config.adapters.batch_size, 1, count),
      'evaluation.batch_size': (config.evaluation.batch_size, 1, None),
    }
  )
  stitch.fit(jnp.zeros((2, 1)), jnp.zeros((2, 1)), kind=config.kind)
  return Setting(config, images, module(**config.model.arguments))


def describe(setting: Setting) -> str:
  """Returns the networks, their training and the data in one line."""
  config, images = setting.config, setting.images
  shapes = jax.eval_shape(net(setting).init, jax.random.key(0))
  return (
    f'{config.networks} {config.model.module} of '
    f'{sum(tree.sizes(shapes).values()):,} parameters; {len(images.train[1])} '
    f'training, {len(images.test[1])} test images; '
    f'{nets_training.describe(config.training)}'
  )


def net(setting: Setting) -> nets.Net:
  """Returns the network as functions of its parameters."""
  return nets.build(setting.module, setting.images.train[0][:1])


def keys(setting: Setting, stage: int) -> types.PRNGKey:
  """Returns a key for each network, different in every stage."""
  config = setting.config
  return side_by_side.keys(config.seed, stage, config.networks)


def trained(setting: Setting) -> types.Params:
  """Trains the networks, ``[S, ...]``."""
  config, examples = setting.config.training, setting.images.train
  return nets_training.networks(
    net(setting), config, keys(setting, 0), examples
  )


def random(setting: Setting) -> types.Params:
  """Draws as many untrained networks, ``[S, ...]``."""
  return jax.vmap(net(setting).init)(keys(setting, 1))


def segmented(
  setting: Setting, networks: types.Params, index: int
) -> stitch.Segmented:
  """Returns one network of a stack, segmented into its blocks."""
  one = side_by_side.pick(networks, index)
  return stitch.Segmented(*models.segments(setting.module, one))
