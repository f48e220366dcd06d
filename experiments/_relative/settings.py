"""Encoders and decoders that were not trained together: data, models, anchors.

A replicate has encoders of several widths and seeds, and its own anchors. A
network is ``{'encoder', 'decoder'}``; those of one width are stacked ``[R * S,
...]`` over replicates and seeds.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._run import checks, public_calls
from experiments._shared import one_task, side_by_side
from wsl import models, stitch, types

Setting = one_task.Setting  # anchors are held-out images
OBJECTIVES = ('classes', 'images')


class Member(NamedTuple):
  """A network of a replicate, with frozen encoder.

  Attributes:
    width: of its latents.
    decoder: its own.
    train: latents of the training images, ``[N, width]``.
    held_out: of the images that anchors are drawn from.
    test: of the test images.
  """

  width: int
  decoder: types.Params
  train: types.Array
  held_out: types.Array
  test: types.Array


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  checks.choices('objectives', config.objectives, OBJECTIVES)
  for name, function, supplied in (
    ('relative', stitch.relative, ('like',)),
    ('translate', stitch.translate, ('kind',)),
  ):
    public_calls.check(function, config[name], supplied=supplied, where=name)
  latents = jax.ShapeDtypeStruct((4, 3), jnp.float32)  # raises if invalid
  jax.eval_shape(lambda z: _relative(z, z, _options(config)), latents)
  translate = functools.partial(stitch.translate, **config.translate)
  jax.eval_shape(translate, latents, latents)
  images = one_task.load(config)
  counts = list(config.anchors)
  if not counts or counts != sorted(set(counts)):
    raise ValueError(f'anchors={counts}: expected growing numbers')
  training, count = config.training, config.seeds * len(config.widths)
  checks.sizes(
    {
      'replicates': (config.replicates, 1, None),
      'seeds': (config.seeds, 1, None),
      'networks (widths times seeds)': (count, 2, None),
      'widths': (min(config.widths, default=0), 1, None),
      'anchors': (counts[0], 2, None),
      'anchors (held_out is their source)': (counts[-1], 2, config.held_out),
      'training.steps': (training.steps, 1, None),
      'training.batch_size': (training.batch_size, 1, len(images.train[1])),
    }
  )
  return Setting(config, images)


def describe(setting: Setting) -> str:
  """Returns the numbers of networks and images in one line."""
  config, images = setting.config, setting.images
  return (
    f'{config.replicates} replicates of {config.seeds * len(config.widths)} '
    f'networks, latents of widths {list(config.widths)}; '
    f'{len(images.train[1])} training, {config.held_out} held out, '
    f'{len(images.test[1])} test images'
  )


def members(
  setting: Setting, networks: dict[str, types.Params]
) -> list[list[Member]]:
  """Returns the networks of each replicate with the latents of all images."""
  config, images = setting.config, setting.images
  found: list[list[Member]] = [[] for _ in range(config.replicates)]
  for width in config.widths:
    module = encoder(setting, width)
    encode = jax.jit(
      jax.vmap(
        lambda params, x, m=module: m.apply({'params': params}, x),
        in_axes=(0, None),
      )
    )
    trained = networks[f'{width}']
    encoded = [
      encode(trained['encoder'], x)
      for x in (images.train[0], images.held_out[0], images.test[0])
    ]
    for run in range(config.replicates * config.seeds):
      own, latents = side_by_side.pick((trained['decoder'], encoded), run)
      found[run // config.seeds].append(Member(width, own, *latents))
  return found


def anchor_ids(setting: Setting, replicate: int, count: int) -> list[int]:
  """Draws anchors from the held-out images, in nested sets."""
  seed = (setting.config.seed, replicate)
  order = np.random.default_rng(seed).permutation(setting.config.held_out)
  return [int(i) for i in order[:count]]


def represent(
  setting: Setting, member: Member, z: types.Array, ids: list[int]
) -> types.Array:
  """Returns the similarities of latents to the anchors.

  Args:
    setting: config, data and model.
    member: the encoder.
    z: its latents, ``[N, width]``.
    ids: held-out images that are the anchors.

  Returns:
    ``[N, most]``, padded with zeros to the largest number of anchors, so that
    all decoders have one shape.
  """
  options = _options(setting.config)
  found = _relative(z, member.held_out[jnp.asarray(ids)], options)
  return jnp.pad(found, ((0, 0), (0, max(setting.config.anchors) - len(ids))))


def _options(config: ml_collections.ConfigDict) -> tuple[tuple[str, Any], ...]:
  """Returns the arguments of ``stitch.relative``, hashable."""
  return tuple(config.relative.items())


@functools.partial(jax.jit, static_argnums=2)
def _relative(
  z: types.Array, anchors: types.Array, options: tuple[tuple[str, Any], ...]
) -> types.Array:
  # The names of anchors are static: constant ones compile once for all choices.
  places = stitch.Anchors(anchors, tuple(range(len(anchors))))
  return stitch.relative(z, places, **dict(options))


def decode(
  setting: Setting, objective: str
) -> Callable[[types.Params, types.Array], types.Array]:
  """Returns a function of (params, latents): the outputs of a decoder."""
  module = decoder(setting, objective)
  return lambda params, z: module.apply({'params': params}, z)


def decoder(setting: Setting, objective: str) -> Any:
  """Returns the module of all decoders of an objective."""
  x = setting.images.train[0]
  outputs = setting.images.classes if objective == 'classes' else x[0].size
  return models.MLP(widths=(setting.config.hidden,), outputs=outputs)


def encoder(setting: Setting, width: int) -> Any:
  """Returns the module of the encoders of a width."""
  return models.MLP(widths=(setting.config.hidden,), outputs=width)
