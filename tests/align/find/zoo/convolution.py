"""Convolutional models."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from tests.align.find.zoo import base

f = base.factorial


def _norm(name=None):
  return nn.BatchNorm(use_running_average=True, name=name)


class ResNet(nn.Module):
  @nn.compact
  def __call__(self, x):
    h = nn.relu(_norm()(nn.Conv(6, (3, 3), use_bias=False)(x)))
    y = nn.relu(_norm()(nn.Conv(5, (3, 3), use_bias=False)(h)))
    h = nn.relu(h + _norm()(nn.Conv(6, (3, 3))(y)))
    y = nn.relu(_norm()(nn.Conv(7, (3, 3), strides=2)(h)))
    y = _norm()(nn.Conv(8, (3, 3))(y))
    h = nn.relu(y + _norm()(nn.Conv(8, (1, 1), strides=2)(h)))
    return nn.Dense(4)(h.mean((1, 2)))


def resnet_batch_norm():
  x = base.normal(2, 6, 6, 3)
  # Two stages of the stream (separated by the projection), two inner widths.
  order = f(6) * f(5) * f(8) * f(7)
  return base.Model(*base.linen(ResNet(), x), (x,), order)


class Grouped(nn.Module):
  @nn.compact
  def __call__(self, x):
    h = nn.Conv(12, (3, 3))(x)
    h = nn.relu(nn.GroupNorm(num_groups=3)(h))
    h = nn.Conv(12, (3, 3), feature_group_count=12)(h)
    h = nn.max_pool(h, (2, 2), (2, 2))
    h = nn.relu(nn.Conv(6, (1, 1), feature_group_count=3)(h))
    h = nn.relu(nn.Dense(5)(h.reshape(h.shape[0], -1)))
    return nn.Dense(2)(h)


def group_norm():
  x = base.normal(2, 4, 4, 2)
  # Twelve channels are 3 groups of 4, permuted within each group; the grouped
  # convolution has the same 3 groups, with 2 channels each at its output.
  order = f(3) * f(4) ** 3 * f(2) ** 3 * f(5)
  return base.Model(*base.linen(Grouped(), x), (x,), order)


def channels_first():
  def conv(x, w, b):
    y = jax.lax.conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=('NCHW', 'OIHW', 'NCHW')
    )
    return y + b.reshape(1, -1, 1, 1)

  def apply(p, x):
    h = jax.nn.relu(conv(x, p['w1'], p['b1']))
    h = h / jnp.sqrt(1e-3 + jnp.mean(h**2, (1, 2, 3), keepdims=True))
    squeezed = jnp.tanh(base.affine(h.mean((2, 3)), p['s1'], p['s1_bias']))
    gates = jax.nn.sigmoid(base.affine(squeezed, p['s2'], p['s2_bias']))
    h = jax.nn.relu(conv(h * gates[:, :, None, None], p['w2'], p['b2']))
    h = jax.lax.reduce_window(
      h, 0.0, jax.lax.add, (1, 1, 2, 2), (1, 1, 2, 2), 'VALID'
    )
    return base.affine(h.reshape(h.shape[0], -1), p['out'], p['out_bias'])

  shapes = {
    'w1': (6, 2, 3, 3), 'b1': (6,), 's1': (6, 4), 's1_bias': (4,),
    's2': (4, 6), 's2_bias': (6,), 'w2': (5, 6, 3, 3), 'b2': (5,),
    'out': (5 * 2 * 3, 3), 'out_bias': (3,),
  }  # fmt: skip
  # Channels, squeezed channels, channels; the flattened axis is (5, 2, 3).
  order = f(6) * f(4) * f(5)
  x = base.normal(2, 2, 4, 6)
  return base.Model(apply, base.draw(shapes), (x,), order)


class DenseNet(nn.Module):
  @nn.compact
  def __call__(self, x):
    h = nn.Conv(6, (3, 3))(x)
    for width in (4, 5):
      y = nn.Conv(width, (3, 3))(nn.relu(_norm()(h)))
      h = jnp.concatenate([h, y], -1)
    return nn.Dense(3)(nn.relu(_norm()(h)).mean((1, 2)))


def dense_net():
  x = base.normal(2, 4, 4, 2)
  # An axis of 6 + 4 + 5 channels: three segments.
  order = f(6) * f(4) * f(5)
  return base.Model(*base.linen(DenseNet(), x), (x,), order)


class UNet(nn.Module):
  @nn.compact
  def __call__(self, x):
    a = nn.relu(nn.Conv(4, (3, 3))(x))
    b = nn.relu(nn.Conv(6, (3, 3), strides=2)(a))
    c = nn.relu(nn.Conv(5, (3, 3), strides=2)(b))
    up = nn.relu(nn.ConvTranspose(3, (2, 2), strides=(2, 2))(c))
    b = nn.relu(nn.Conv(7, (3, 3))(jnp.concatenate([up, b], -1)))
    shape = (*a.shape[:3], b.shape[-1])
    b = jax.image.resize(b, shape, 'nearest')
    return nn.Conv(2, (1, 1))(jnp.concatenate([a, b], -1))


def unet():
  x = base.normal(1, 8, 8, 2)
  # Every convolution has its own channels; skips are concatenated.
  order = f(4) * f(6) * f(5) * f(3) * f(7)
  return base.Model(*base.linen(UNet(), x), (x,), order)
