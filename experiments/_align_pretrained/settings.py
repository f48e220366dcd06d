"""Pairs of pretrained networks: their functions, data and measures."""

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections

from experiments._align_pretrained import resnets, styles
from experiments._run import checks, records
from wsl import align, types

KINDS = ('style', 'resnet')


class Pair(NamedTuple):
  """Two networks of one shape."""

  first: types.Params
  second: types.Params


class Setting(NamedTuple):
  """Config, networks and data of a run.

  Attributes:
    config: of the run.
    apply_fn: the function of all networks.
    inputs: images, ``[N, h, w, c]``.
    pairs: maps the folder of the run to pairs by name.
    line: measures the line between two networks: lists by name, with the
      points ``t``.
  """

  config: ml_collections.ConfigDict
  apply_fn: Callable[[types.Params, types.Array], types.Array]
  inputs: types.Array
  pairs: Callable[[records.Run], dict[str, Pair]]
  line: Callable[[types.Params, types.Params], dict[str, Any]]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  checks.choice('kind', config.kind, KINDS)
  checks.sizes(
    {
      'points': (config.points, 3, None),
      'images': (config.images, 1, None),
      'noise': (config.noise, 0, None),
    }
  )
  if not config.pairs:
    raise ValueError('pairs: none given')
  checks.choices(
    'ladder', [k for new in config.ladder for k in new], align.GAUGES
  )
  source = {'style': styles, 'resnet': resnets}[config.kind]
  found = source.load(config)
  return Setting(
    config,
    found.apply_fn,
    found.inputs,
    lambda out: {k: Pair(*v) for k, v in source.pairs(found, out).items()},
    found.line,
  )


def describe(setting: Setting) -> str:
  """Returns the pairs and the number of images in one line."""
  config = setting.config
  names = ', '.join('-'.join(map(str, pair)) for pair in config.pairs)
  return f'{config.kind} networks, pairs {names}; {len(setting.inputs)} images'
