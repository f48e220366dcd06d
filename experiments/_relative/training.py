"""Training of autoencoders and classifiers, and of relative decoders."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments._relative import settings
from experiments._shared import one_task, side_by_side
from wsl import scale, types


def networks(
  setting: settings.Setting, objective: str
) -> dict[str, types.Params]:
  """Trains encoders with their decoders, by width, ``[R * S, ...]``."""
  found = {}
  for width in setting.config.widths:
    loss = functools.partial(_loss, setting, objective, width)
    start = functools.partial(_start, setting, objective, width)
    keys = _keys(setting, settings.OBJECTIVES.index(objective), width)
    found[f'{width}'] = side_by_side.advance_all(
      f'{objective}, {width}',
      loss,
      jax.jit(jax.vmap(start))(keys),
      keys,
      targets(setting, objective),
      lambda shared, run: ((), shared),
      **_training(setting),
    )
  return found


def relative_decoders(
  setting: settings.Setting,
  objective: str,
  replicates: list[list[settings.Member]],
) -> types.Params:
  """Trains decoders of relative representations for every network.

  Args:
    setting: config, data and model.
    objective: of the decoders.
    replicates: networks with frozen encoders.

  Returns:
    Decoders, ``[counts, replicates, members, ...]``.
  """
  config = setting.config
  rows = jnp.stack(
    [
      settings.represent(
        setting, member, member.train, settings.anchor_ids(setting, r, count)
      )
      for count in config.anchors
      for r, group in enumerate(replicates)
      for member in group
    ]
  )
  decoder = settings.decoder(setting, objective)
  start = lambda key: decoder.init(key, rows[0, :1])['params']
  keys = jax.random.split(jax.random.key(config.seed + 1), len(rows))
  found = side_by_side.advance_all(
    f'{objective}, relative',
    functools.partial(_decoder_loss, setting, objective),
    jax.jit(jax.vmap(start))(keys),
    keys,
    {'rows': rows, 'targets': targets(setting, objective)[1]},
    lambda shared, run: ((), (shared['rows'][run], shared['targets'])),
    **_training(setting),
  )
  # The runs are in the order of ``rows``: counts, replicates, members.
  shape = len(config.anchors), len(replicates), len(replicates[0])
  return side_by_side.fold(found, *shape)


def targets(setting: settings.Setting, objective: str) -> one_task.Examples:
  """Returns training images and the targets of their decoders."""
  x, y = setting.images.train
  return (x, y) if objective == 'classes' else (x, x.reshape(len(x), -1))


def _start(
  setting: settings.Setting, objective: str, width: int, key: types.PRNGKey
) -> types.Params:
  """Draws an encoder and its decoder."""
  keys = jax.random.split(key)
  encoder = settings.encoder(setting, width)
  latent = jnp.zeros((1, width), jnp.float32)
  decoder = settings.decoder(setting, objective)
  return {
    'encoder': encoder.init(keys[0], setting.images.train[0][:1])['params'],
    'decoder': decoder.init(keys[1], latent)['params'],
  }


def _loss(
  setting: settings.Setting,
  objective: str,
  width: int,
  bound: tuple[()],
  params: types.Params,
  batch: one_task.Examples,
  key: types.PRNGKey,
) -> types.Array:
  """Returns the loss of encoder and decoder."""
  encoder = settings.encoder(setting, width)
  latents = encoder.apply({'params': params['encoder']}, batch[0]), batch[1]
  return _decoder_loss(
    setting, objective, bound, params['decoder'], latents, key
  )


def _decoder_loss(
  setting: settings.Setting,
  objective: str,
  bound: tuple[()],
  params: types.Params,
  batch: one_task.Examples,
  key: types.PRNGKey,
) -> types.Array:
  """Returns the cross-entropy of classes or the squared error of images."""
  del bound
  if objective == 'classes':
    loss = scale.supervised(settings.decode(setting, objective))
    return loss(params, batch, key)
  z, target = batch
  return jnp.mean(
    jnp.square(settings.decode(setting, objective)(params, z) - target)
  )


def _training(setting: settings.Setting) -> dict[str, Any]:
  """Returns the arguments of ``advance_all`` that the config gives."""
  training = setting.config.training
  return {
    'steps': training.steps,
    'batch_size': training.batch_size,
    'rate': training.learning_rate,
    'at_once': setting.config.at_once,
  }


def _keys(setting: settings.Setting, stage: int, width: int) -> types.PRNGKey:
  """Returns a key for every replicate and seed, ``[R * S]``."""
  config = setting.config
  count = config.replicates * config.seeds
  return side_by_side.keys(config.seed, 1000 * stage + width, count)
