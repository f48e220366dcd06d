"""Networks of style transfer: stored or drawn, and lines between them."""

import functools
import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments._align_pretrained import stored_files, style_net
from experiments._run import records
from experiments._shared import one_task
from wsl import data, landscape, types


class Source(NamedTuple):
  """Networks by name, and what they are measured with.

  Attributes:
    config: of the run.
    networks: parameters by name.
    inputs: images in 0 .. 255, ``[N, side, side, 3]``.
  """

  config: ml_collections.ConfigDict
  networks: dict[str, types.Params]
  inputs: types.Array

  @property
  def apply_fn(self) -> Any:
    """The function of the networks."""
    return style_net.apply

  def line(self, a: types.Params, b: types.Params) -> dict[str, Any]:
    """Measures the images that networks on a line make; see ``line``."""
    return line(a, b, self.inputs, self.config.points)


def load(config: ml_collections.ConfigDict) -> Source:
  """Reads or draws the networks that the pairs name, and images."""
  names = list(dict.fromkeys(itertools.chain(*config.pairs)))
  if not config.data_dir:
    keys = jax.random.split(jax.random.key(config.seed), len(names))
    networks = {n: draw(k, config) for n, k in zip(names, keys)}
    return Source(config, networks, images(data.digits().test.x, config))
  folder = pathlib.Path(config.data_dir)
  found = {
    n: stored_files.read(
      folder / config.weights / f'style_{n}.npz',
      'weights/style_*.npz',
      style_net.from_checkpoint,
    )
    for n in names
  }
  task = one_task.read(
    ml_collections.ConfigDict({'data': config.data_dir, 'task': config.task})
  )
  return Source(config, found, images(task.test.x, config))


def draw(key: types.PRNGKey, config: ml_collections.ConfigDict) -> types.Params:
  """Draws a network of the widths of a config."""
  shapes = style_net.plan(tuple(config.widths), config.blocks)
  stored = []
  for i, (name, shape) in enumerate(shapes.items()):
    own = jax.random.split(jax.random.fold_in(key, i), 3)
    if name.startswith('up_'):
      shape = (*shape[:2], shape[3], shape[2])
    out = shape[2] if name.startswith('up_') else shape[3]
    stored += [
      jax.random.normal(own[0], shape, jnp.float32) / 4,
      jax.random.normal(own[1], (out,), jnp.float32) / 4,
      1 + jax.random.normal(own[2], (out,), jnp.float32) / 4,
    ]
  names = ['Variable', *(f'Variable_{i}' for i in range(1, len(stored)))]
  return style_net.from_checkpoint(dict(zip(names, stored)))


def images(x: np.ndarray, config: ml_collections.ConfigDict) -> types.Array:
  """Returns colour images in 0 .. 255 of the side of a config."""
  x = np.asarray(x[: config.images], np.float32)
  x = x * (255 / x.max())
  x = np.broadcast_to(x[..., None], (*x.shape, 3)) if x.ndim == 3 else x
  shape = (len(x), config.side, config.side, 3)
  return jax.image.resize(jnp.asarray(x), shape, 'bilinear')


def pairs(
  source: Source, out: records.Run
) -> dict[str, tuple[types.Params, types.Params]]:
  """Returns the networks of each pair by its name."""
  del out
  return {
    f'{a}-{b}': (source.networks[a], source.networks[b])
    for a, b in source.config.pairs
  }


@functools.partial(jax.jit, static_argnums=3)
def _measured(
  a: types.Params, b: types.Params, x: types.Array, points: int
) -> dict[str, types.Array]:
  """Returns the measures of ``line`` as arrays."""
  ends = style_net.apply(a, x), style_net.apply(b, x)
  unit = jnp.std(ends[0])
  rms = lambda y: jnp.sqrt(jnp.mean(jnp.square(y))) / unit

  def at(t: types.Array) -> dict[str, types.Array]:
    y = style_net.apply(landscape.interpolate(a, b, t), x)
    mixed = ends[0] + t * (ends[1] - ends[0])
    return {
      'first': rms(y - ends[0]),
      'second': rms(y - ends[1]),
      'mixture': rms(y - mixed),
      'contrast': jnp.std(y) / unit,
    }

  return jax.lax.map(at, jnp.linspace(0, 1, points, dtype=jnp.float32))


def line(
  a: types.Params, b: types.Params, x: types.Array, points: int
) -> dict[str, Any]:
  """Measures the images that networks on a line make.

  Args:
    a: a network.
    b: another.
    x: images.
    points: on the line.

  Returns:
    Root mean square distances in units of the standard deviation of the images
    of ``a``: to the images of the ``first`` and the ``second`` end, and to
    their ``mixture``, (1 - t) times the first plus t times the second; and
    ``contrast``, the standard deviation of the images.
  """
  found = _measured(a, b, x, points)
  t = np.linspace(0, 1, points)
  return {'t': t.tolist(), **{k: v.tolist() for k, v in found.items()}}
