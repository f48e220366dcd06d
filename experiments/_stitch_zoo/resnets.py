"""The networks of a zoo: loaded, trained or drawn."""

from typing import Any
import zipfile

import jax
import numpy as np

from experiments._shared import nets, nets_training, side_by_side
from experiments._stitch_zoo import settings
from wsl import align, models, stitch, types

Setting = settings.Setting


def segmented(
  setting: Setting, depth: int, variables: types.Params
) -> stitch.Segmented:
  """Returns a network segmented into its blocks."""
  return stitch.Segmented(*models.segments(module(setting, depth), variables))


def module(setting: Setting, depth: int) -> Any:
  """Returns the Flax module of a depth."""
  config = setting.config
  widths = tuple(config.widths)
  return models.CifarResNet(depth=depth, outputs=config.outputs, widths=widths)


def variables(setting: Setting, depth: int) -> types.Params:
  """Reads the pretrained variables of a depth, or trains them."""
  config = setting.config
  if not config.weights:
    return trained(setting, depth)
  file = settings.weights_file(config, depth)
  try:
    with file.open('rb') as handle, np.load(handle) as stored:
      return models.cifar_resnet_from_torch(dict(stored))
  except (ValueError, OSError, zipfile.BadZipFile) as error:
    raise ValueError(f'{file}: {error}') from None


def trained(setting: Setting, depth: int) -> types.Params:
  """Trains a network, and sets its running moments."""
  net = nets.build(module(setting, depth), setting.train[0][:1])
  keys = jax.random.split(_key(setting, depth), 1)
  found = nets_training.networks(
    net, setting.config.training, keys, setting.train
  )
  return settled(setting, net, side_by_side.pick(found, 0))


def random(setting: Setting, depth: int) -> types.Params:
  """Draws an untrained network, and sets its running moments."""
  net = nets.build(module(setting, depth), setting.train[0][:1])
  fresh = jax.jit(net.init)(jax.random.fold_in(_key(setting, depth), 1))
  return settled(setting, net, fresh)


def settled(
  setting: Setting, net: nets.Net, params: types.Params
) -> types.Params:
  """Sets running moments to those of the images that adapters are fitted to."""
  assert net.update_fn is not None
  moments = align.reset_batch_stats(
    jax.tree_util.Partial(net.update_fn, params),
    params['batch_stats'],
    settings.fit_batches(setting),
  )
  return {**params, 'batch_stats': moments}


def _key(setting: Setting, depth: int) -> types.PRNGKey:
  return jax.random.fold_in(jax.random.key(setting.config.seed), depth)
