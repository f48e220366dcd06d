"""ResNet-50 with the moments of BatchNorm as parameters, and random weights."""

from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree

STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks, width


def shapes(stages: Sequence[tuple[int, int]] = STAGES) -> Any:
  def conv(side: int, m: int, n: int) -> Any:
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    names = ('scale', 'bias', 'mean', 'var')
    return {'kernel': shape(side, side, m, n)} | {k: shape(n) for k in names}

  params: Any = {'stem': conv(7, 3, 64)}
  width = 64
  for stage, (blocks, middle) in enumerate(stages):
    for block in range(blocks):
      params[f'{stage}.{block}'] = layer = {
        'a': conv(1, width, middle),
        'b': conv(3, middle, middle),
        'c': conv(1, middle, 4 * middle),
      }
      if not block:
        layer['skip'] = conv(1, width, 4 * middle)
      width = 4 * middle
  head = {'kernel': (width, 1000), 'bias': (1000,)}
  params['head'] = {
    k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in head.items()
  }
  return params


def apply(params: Any, x: jax.Array) -> jax.Array:
  x = jax.nn.relu(_conv(params['stem'], x, 2))
  x = jax.lax.reduce_window(
    x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), 'SAME'
  )
  for name in sorted(params.keys() - {'stem', 'head'}):
    layer, (stage, block) = params[name], map(int, name.split('.'))
    stride = 2 if stage and not block else 1
    y = jax.nn.relu(_conv(layer['a'], x, 1))
    y = _conv(layer['c'], jax.nn.relu(_conv(layer['b'], y, stride)), 1)
    skip = _conv(layer['skip'], x, stride) if 'skip' in layer else x
    x = jax.nn.relu(y + skip)
  return x.mean((1, 2)) @ params['head']['kernel'] + params['head']['bias']


def _conv(layer: Any, x: jax.Array, stride: int) -> jax.Array:
  dimensions = ('NHWC', 'HWIO', 'NHWC')
  x = jax.lax.conv_general_dilated(
    x, layer['kernel'], (stride, stride), 'SAME', dimension_numbers=dimensions
  )
  x = (x - layer['mean']) / jnp.sqrt(layer['var'] + 1e-5)
  return x * layer['scale'] + layer['bias']


def draw(shapes: Any, seed: int) -> Any:
  rng = np.random.default_rng(seed)

  def one(name: str, leaf: Any) -> np.ndarray:
    x = rng.standard_normal(leaf.shape, np.float32)
    if name.endswith('kernel'):
      return x * np.float32(math.sqrt(2 / math.prod(leaf.shape[:-1])))
    return np.abs(1 + x / 10) if name.endswith(('scale', 'var')) else x / 10

  return tree.map_named(one, shapes)
