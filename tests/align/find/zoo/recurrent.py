"""Recurrent models."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from tests.align.find.zoo import base

f = base.factorial


class LSTM(nn.Module):
  @nn.compact
  def __call__(self, x):
    zeros = lambda n: jnp.zeros((x.shape[0], n), x.dtype)
    start = zeros(5), zeros(5)
    x = nn.RNN(nn.LSTMCell(5))(x, initial_carry=start)
    start = zeros(4), zeros(4)
    x = nn.RNN(nn.OptimizedLSTMCell(4))(x, initial_carry=start)
    return nn.Dense(2)(x)


def lstm():
  x = base.normal(2, 4, 3)
  # One label for each layer: state, all gates and both axes of W_hh.
  return base.Model(*base.linen(LSTM(), x), (x,), f(5) * f(4))


class GRU(nn.Module):
  @nn.compact
  def __call__(self, x):
    start = jnp.zeros((x.shape[0], 6), x.dtype)
    x = nn.RNN(nn.GRUCell(6), reverse=True)(x, initial_carry=start)
    return nn.Dense(2)(x)


def gru():
  x = base.normal(2, 4, 3)
  return base.Model(*base.linen(GRU(), x), (x,), f(6))


def lstm_concatenated():
  def apply(p, x):
    def step(state, x):
      h, c = state
      gates = x @ p['wx'] + h @ p['wh'] + p['b'][None]
      i, j, k, o = jnp.split(gates, 4, -1)
      c = jax.nn.sigmoid(k) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
      h = jax.nn.sigmoid(o) * jnp.tanh(c)
      return (h, c), h

    start = p['h0'], p['c0']
    start = jax.tree.map(lambda s: jnp.tile(s[None], (x.shape[0], 1)), start)
    _, h = jax.lax.scan(step, start, x.swapaxes(0, 1))
    return h @ p['out']

  shapes = {
    'wx': (3, 24), 'wh': (6, 24), 'b': (24,), 'h0': (6,), 'c0': (6,),
    'out': (6, 2),
  }  # fmt: skip
  # The gate axis is 4 segments of one label.
  return base.Model(apply, base.draw(shapes), (base.normal(2, 4, 3),), f(6))


def gru_concatenated():
  def layer(p, x):
    def step(h, x):
      left = base.affine(x, p['wx'], p['bx'])
      right = base.affine(h, p['wh'], p['bh'])
      n = h.shape[-1]
      r = jax.nn.sigmoid(left[:, :n] + right[:, :n])
      z = jax.nn.sigmoid(left[:, n : 2 * n] + right[:, n : 2 * n])
      new = jnp.tanh(left[:, 2 * n :] + r * right[:, 2 * n :])
      h = (1 - z) * new + z * h
      return h, h

    start = jnp.zeros((x.shape[1], p['wh'].shape[0]), x.dtype)
    return jax.lax.scan(step, start, x)[1]

  def apply(p, x):
    h = layer(p['two'], layer(p['one'], x))
    return h[-1] @ p['out']

  shapes = lambda m, n: {
    'wx': (m, 3 * n), 'wh': (n, 3 * n), 'bx': (3 * n,), 'bh': (3 * n,),
  }  # fmt: skip
  shapes = {'one': shapes(3, 6), 'two': shapes(6, 5), 'out': (5, 2)}
  # One label for each layer.
  order = f(6) * f(5)
  return base.Model(apply, base.draw(shapes), (base.normal(4, 2, 3),), order)


def state_space():
  def apply(p, x):
    u = jax.nn.silu(x @ p['in'])
    b, c = u @ p['b'], u @ p['c']
    decay = jnp.exp(-jnp.exp(p['log_a']))[None, None]
    decay = jnp.broadcast_to(decay, (*u.shape, b.shape[-1]))
    drive = u[..., None] * b[:, :, None]

    def merge(left, right):
      return left[0] * right[0], left[1] * right[0] + right[1]

    _, state = jax.lax.associative_scan(merge, (decay, drive), axis=1)
    y = jnp.einsum('bsdn,bsn->bsd', state, c) + u * p['skip'][None, None]
    return y @ p['out']

  shapes = {
    'in': (3, 6), 'b': (6, 5), 'c': (6, 5), 'log_a': (6, 5), 'skip': (6,),
    'out': (6, 2),
  }  # fmt: skip
  # Channels, and the states that all channels share through b and c.
  order = f(6) * f(5)
  return base.Model(apply, base.draw(shapes), (base.normal(2, 4, 3),), order)
