"""A family of vision transformers: networks, routes, costs and accuracy.

The first axis of a leaf is S seeds unless stated otherwise.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._run import checks
from experiments._shared import one_task, side_by_side
from wsl import models, stats, stitch, types

Routes = Sequence[stitch.Route]
MEASURES = {
  'cka': stats.cka,
  'residual': lambda moments: 1 - stats.residual(moments),
}


class Setting(NamedTuple):
  """Config, data and anchors of a run.

  Attributes:
    config: of the run.
    images: normalised images and labels.
    depths: the number of blocks of each anchor by name, smallest first.
    widths: of each anchor.
  """

  config: ml_collections.ConfigDict
  images: one_task.Images
  depths: dict[str, int]
  widths: dict[str, int]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Reads the data and checks the config; see ``experiment.Run`` for errors."""
  images = one_task.load(config)
  count, side = len(images.train[1]), images.train[0].shape[1]
  checks.sizes(
    {
      'seeds': (config.seeds, 1, None),
      'training.epochs': (config.training.epochs, 1, None),
      'training.batch_size': (config.training.batch_size, 1, count),
      'joint.epochs': (config.joint.epochs, 1, None),
      'joint.rank': (config.joint.rank, 1, None),
      'joint.buckets': (config.joint.buckets, 1, None),
      'calibration': (config.calibration, 1, count),
    }
  )
  widths, depths = list(config.widths), list(config.depths)
  if len(widths) < 2 or widths != sorted(set(widths)):
    raise ValueError(f'widths={widths}: expected two or more growing numbers')
  if len(depths) != len(widths) or min(depths) < 2 or depths[-1] % depths[0]:
    raise ValueError(
      f'depths={depths}: expected {len(widths)} numbers, 2 or more, the last a '
      'multiple of the first'
    )
  for width in (*widths, *config.students.widths):
    if width % config.heads:
      raise ValueError(f'heads={config.heads} does not divide width {width}')
  if side % config.patch:
    raise ValueError(f'patch={config.patch} does not divide the side, {side}')
  checks.choice('selection.measure', config.selection.measure, MEASURES)
  names = [f'vit{w}x{d}' for w, d in zip(widths, depths, strict=True)]
  setting = Setting(
    config,
    images,
    dict(zip(names, depths, strict=True)),
    dict(zip(names, widths, strict=True)),
  )
  most = len(candidates(setting)) - len(names)
  checks.sizes({'selection.count': (config.selection.count, 1, most)})
  return setting


def describe(setting: Setting) -> str:
  """Returns networks, routes and images in one line."""
  v1, v2 = routes(setting), routes_v2(setting)
  return (
    f'anchors {", ".join(setting.depths)}; {len(v1)} networks of one stitch '
    f'(SN-Net), {len(v2)} of two (SN-Netv2); {len(setting.images.train[1])} '
    f'training images, {setting.config.seeds} seeds'
  )


def routes(setting: Setting) -> Routes:
  """Returns the routes of SN-Net."""
  return stitch.sn_net_routes(setting.depths)


def routes_v2(setting: Setting) -> Routes:
  """Returns the routes of SN-Netv2 between the smallest and largest anchor."""
  names = list(setting.depths)
  outer = {name: setting.depths[name] for name in (names[0], names[-1])}
  return stitch.sn_net_v2_routes(outer, last=False)


def candidates(setting: Setting) -> Routes:
  """Returns all stitches of neighbouring anchors, each with its own adapter."""
  names = list(setting.depths)
  found = [
    stitch.Route((stitch.Piece(name, 0, depth),))
    for name, depth in setting.depths.items()
  ]
  for a, b in itertools.pairwise(names):
    found += [
      stitch.Route(
        (stitch.Piece(a, 0, p), stitch.Piece(b, q, setting.depths[b])),
        (f'{a}_{p}_{b}_{q}',),
      )
      for p in range(1, setting.depths[a] + 1)
      for q in range(setting.depths[b])
    ]
  return found


def draw(
  setting: Setting, width: int, depth: int, key: types.PRNGKey
) -> stitch.Segmented:
  """Returns one untrained network."""
  config, images = setting.config, setting.images
  module = models.ViT(
    outputs=images.classes,
    patch=config.patch,
    width=width,
    depth=depth,
    heads=config.heads,
    pool='mean',
  )
  return _draw(module, key, images.train[0][:1])


@functools.partial(jax.jit, static_argnums=0)
def _draw(
  module: models.ViT, key: types.PRNGKey, image: types.Array
) -> stitch.Segmented:
  """Initialises a network, and segments it into blocks."""
  params = module.init(key, image)['params']
  return stitch.Segmented(*models.segments(module, params))


def keys(setting: Setting, stage: int) -> types.PRNGKey:
  """Returns a key for each seed, ``[S]``, different in every stage."""
  return side_by_side.keys(setting.config.seed, stage, setting.config.seeds)


def batches(setting: Setting) -> list[types.Array]:
  """Returns the images that adapters are fitted to, without labels."""
  return [setting.images.train[0][: setting.config.calibration]]


def flops(
  setting: Setting, family: stitch.Family, found: Routes
) -> list[float]:
  """Returns the FLOPs of each route for one image, R numbers."""
  folded = {
    name: stitch.fold(adapter) for name, adapter in family.adapters.items()
  }
  costs = stitch.cost(
    stitch.Family(family.models, folded), setting.images.train[0][:1]
  )
  return [float(stitch.route_cost(costs, route).flops) for route in found]


def accuracies(
  setting: Setting, apply_fn: Any, family: types.Params, rows: Any
) -> dict[str, list[float]]:
  """Measures all routes with one compiled function.

  Args:
    setting: config, data and model.
    apply_fn: maps (family, row, images) to logits, as from ``stitch.program``.
    family: networks and adapters of one seed.
    rows: of the routes, ``[R, ...]``.

  Returns:
    ``held_out`` and ``test``, R accuracies each.
  """
  splits = setting.images.held_out, setting.images.test
  x, y = (jnp.concatenate(parts) for parts in zip(*splits, strict=True))
  right = np.asarray(_right(apply_fn, family, jnp.asarray(rows), x, y))
  count = len(splits[0][1])
  return {
    'held_out': right[:, :count].mean(1).tolist(),
    'test': right[:, count:].mean(1).tolist(),
  }


@functools.partial(jax.jit, static_argnums=0)
def _right(
  apply_fn: Any,
  family: types.Params,
  rows: types.Array,
  x: types.Array,
  y: types.Array,
) -> types.Array:
  """Returns whether each route classifies each image correctly, ``[R, N]``."""
  return jax.lax.map(
    lambda row: jnp.argmax(apply_fn(family, row, x), -1).astype(y.dtype) == y,
    rows,
  )


def alone(model: stitch.Segmented, row: Any, x: types.Array) -> types.Array:
  """Applies a network, with the signature of a route of a family."""
  del row
  return stitch.apply(model, x)


def views(
  setting: Setting, anchors: Mapping[str, types.Params], seed: int
) -> dict[str, stitch.Segmented]:
  """Returns one seed's anchors as networks.

  Args:
    setting: config, data and model.
    anchors: parameters by name, ``[S, ...]``.
    seed: index of the seed.

  Returns:
    Networks by name.
  """
  found = {}
  for name, depth in setting.depths.items():
    one = functools.partial(draw, setting, setting.widths[name], depth)
    like = jax.eval_shape(one, jax.random.key(0))
    params = side_by_side.pick(anchors[name], seed)
    found[name] = dataclasses.replace(like, params=params)
  return found
