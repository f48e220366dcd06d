"""A network that transfers the style of one painting to images."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from wsl import types

EPSILON = 1e-3
# (name, kernel, stride): the sign of the stride is negative where the image
# grows. Blocks of two convolutions are between the two parts.
_BEFORE = (('conv_0', 9, 1), ('conv_1', 3, 2), ('conv_2', 3, 2))
_AFTER = (('up_0', 3, -2), ('up_1', 3, -2), ('out', 9, 1))
_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def apply(params: types.Params, x: types.Array) -> types.Array:
  """Maps images ``[B, h, w, 3]`` in 0 .. 255 to images of the same shape.

  Sides are multiples of 4. Three convolutions, residual blocks, and three
  convolutions that restore the size, each followed by instance normalisation.

  Reference:
    Johnson et al., "Perceptual Losses for Real-Time Style Transfer and
    Super-Resolution", 2016, arXiv:1603.08155; instance normalisation: Ulyanov
    et al., 2016, arXiv:1607.08022.
  """
  h = x
  for name, _, stride in _BEFORE:
    h = jax.nn.relu(_layer(params[name], h, stride))
  for i in range(blocks(params)):
    block = params[f'block_{i}']
    inner = jax.nn.relu(_layer(block['conv_0'], h, 1))
    h = h + _layer(block['conv_1'], inner, 1)
  for name, _, stride in _AFTER:
    h = _layer(params[name], h, stride)
    h = h if name == 'out' else jax.nn.relu(h)
  return 150 * jnp.tanh(h) + 127.5


def blocks(params: types.Params) -> int:
  """Returns the number of residual blocks."""
  return sum(name.startswith('block_') for name in params)


def _layer(layer: types.Params, x: types.Array, stride: int) -> types.Array:
  """Convolves, and normalises each channel of each image over positions."""
  if stride > 0:
    h = jax.lax.conv_general_dilated(
      x, layer['kernel'], (stride, stride), 'SAME', dimension_numbers=_LAYOUT
    )
  else:
    h = jax.lax.conv_transpose(
      x, layer['kernel'], (-stride, -stride), 'SAME', dimension_numbers=_LAYOUT
    )
  mean = jnp.mean(h, (1, 2), keepdims=True)
  variance = jnp.mean(jnp.square(h - mean), (1, 2), keepdims=True)
  normal = (h - mean) * jax.lax.rsqrt(variance + EPSILON)
  on_last = lambda v: v[None, None, None]
  return normal * on_last(layer['scale']) + on_last(layer['shift'])


def plan(widths: tuple[int, int, int], count: int) -> dict[str, Any]:
  """Returns the shapes of all kernels ``[h, w, in, out]``, in their order."""
  small, middle, large = widths
  sizes = dict(zip((n for n, _, _ in _BEFORE), ((3, small), (small, middle))))
  sizes['conv_2'] = middle, large
  for i in range(count):
    sizes |= {f'block_{i}/conv_{j}': (large, large) for j in (0, 1)}
  sizes |= {'up_0': (large, middle), 'up_1': (middle, small), 'out': (small, 3)}
  side = {name: k for name, k, _ in (*_BEFORE, *_AFTER)}
  return {n: (side.get(n, 3), side.get(n, 3), *io) for n, io in sizes.items()}


def from_checkpoint(stored: Mapping[str, Any]) -> types.Params:
  """Returns the parameters of a TensorFlow checkpoint.

  Its variables are numbered: kernel, shift and scale of each layer. Kernels of
  transposed convolutions are ``[h, w, out, in]`` and not flipped.

  Raises:
    ValueError: if a variable is missing, or has another shape.
  """
  names = ['Variable', *(f'Variable_{i}' for i in range(1, len(stored)))]
  if {*names} != {*stored} or len(names) < 18 or len(names) % 6:
    raise ValueError('expected variables named Variable, Variable_1, ...')
  given = [jnp.asarray(stored[name]) for name in names]
  widths = tuple(given[3 * i].shape[-1] for i in range(3))
  shapes = plan(widths, len(names) // 6 - 3)  # type: ignore[arg-type]
  params: dict[str, Any] = {}
  for k, (name, shape) in enumerate(shapes.items()):
    kernel, shift, scale = given[3 * k : 3 * k + 3]
    if name.startswith('up_'):
      # TensorFlow's transposed convolution is the gradient of a convolution
      # with this kernel: flipped positions, channels exchanged.
      kernel = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    if kernel.shape != shape or not shift.shape == scale.shape == shape[-1:]:
      raise ValueError(f'layer {name}: kernel {kernel.shape}, expected {shape}')
    *parents, last = name.split('/')
    node = params
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = {'kernel': kernel, 'scale': scale, 'shift': shift}
  return params
