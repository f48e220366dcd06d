"""Encoders and decoders that were never trained with each other.

A replicate holds encoders of several widths and seeds, and its own choice of
anchors. A network is ``{'encoder', 'decoder'}``; those of one width are stacked
``[R * S, ...]`` over replicates and seeds.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._run import public_calls
from experiments._shared import one_task
from wsl import models, stitch, tree, types

OBJECTIVES = ('classes', 'images')


class Setting(NamedTuple):
  """What every stage needs.

  Attributes:
    config: the run's.
    images: the data.
  """

  config: ml_collections.ConfigDict
  images: one_task.Images


class Member(NamedTuple):
  """One network of a replicate, its encoder frozen.

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
  """Reads the data and checks the config.

  Args:
    config: see ``configs/relative.py``.

  Returns:
    The setting.

  Raises:
    ValueError: naming what is wrong in the config.
    FileNotFoundError: if the data is missing.
  """
  for name in config.objectives:
    if name not in OBJECTIVES:
      hint = tree.nearest(name, OBJECTIVES)
      raise ValueError(
        f"objectives: no '{name}'{hint}: there are {', '.join(OBJECTIVES)}"
      )
  for name, function, supplied in (
    ('relative', stitch.relative, ('like',)),
    ('translate', stitch.translate, ('kind',)),
  ):
    public_calls.check(function, config[name], supplied=supplied, where=name)
  latents = jax.ShapeDtypeStruct((4, 3), jnp.float32)  # are the values valid?
  jax.eval_shape(lambda z: _relative(z, z, _options(config)), latents)
  translate = functools.partial(stitch.translate, **config.translate)
  jax.eval_shape(translate, latents, latents)
  images = one_task.load(config)
  counts = list(config.anchors)
  if not counts or counts != sorted(set(counts)):
    raise ValueError(f'anchors={counts}: expected growing numbers')
  one_task.check_sizes(
    {
      'replicates': (config.replicates, 1, None),
      'seeds': (config.seeds, 1, None),
      'networks (widths times seeds)': (
        config.seeds * len(config.widths),
        2,
        None,
      ),
      'widths': (min(config.widths, default=0), 1, None),
      'anchors': (counts[0], 2, None),
      'anchors (held_out is their source)': (counts[-1], 2, config.held_out),
      'training.steps': (config.training.steps, 1, None),
      'training.batch_size': (
        config.training.batch_size,
        1,
        len(images.train[1]),
      ),
    }
  )
  return Setting(config, images)


def members(
  setting: Setting, networks: dict[str, types.Params]
) -> list[list[Member]]:
  """Returns the networks of each replicate, and what their encoders see."""
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
    seen = [
      encode(trained['encoder'], x)
      for x in (images.train[0], images.held_out[0], images.test[0])
    ]
    for run in range(config.replicates * config.seeds):
      own = jax.tree.map(lambda x, r=run: x[r], trained['decoder'])
      latents = [z[run] for z in seen]
      found[run // config.seeds].append(Member(width, own, *latents))
  return found


def anchor_ids(setting: Setting, replicate: int, count: int) -> list[int]:
  """Draws anchors from the images held out; more contain the fewer."""
  seed = (setting.config.seed, replicate)
  order = np.random.default_rng(seed).permutation(setting.config.held_out)
  return [int(i) for i in order[:count]]


def represent(
  setting: Setting, member: Member, z: types.Array, ids: list[int]
) -> types.Array:
  """Returns what latents of an encoder are relative to its anchors.

  Args:
    setting: what every stage needs.
    member: the encoder.
    z: its latents, ``[N, width]``.
    ids: which of the images held out are the anchors.

  Returns:
    ``[N, most]``, padded with zeros to the largest number of anchors, so that
    decoders of few and of many are of one shape.
  """
  options = _options(setting.config)
  found = _relative(z, member.held_out[jnp.asarray(ids)], options)
  return jnp.pad(found, ((0, 0), (0, max(setting.config.anchors) - len(ids))))


def _options(config: ml_collections.ConfigDict) -> tuple[tuple[str, Any], ...]:
  return tuple(config.relative.items())


@functools.partial(jax.jit, static_argnums=2)
def _relative(
  z: types.Array, anchors: types.Array, options: tuple[tuple[str, Any], ...]
) -> types.Array:
  # The ids would be constants of the program: each choice would compile anew.
  places = stitch.Anchors(anchors, tuple(range(len(anchors))))
  return stitch.relative(z, places, **dict(options))


def decode(
  setting: Setting, objective: str
) -> Callable[[types.Params, types.Array], types.Array]:
  """Returns the decoder: maps (params, latents) to outputs."""
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
