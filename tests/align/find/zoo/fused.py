"""Projections whose parts lie inside of the heads: ``heads * (q + k + v)``."""

import jax
import jax.numpy as jnp

from tests.align.find.zoo import base

f = base.factorial
_DISTANCE = jnp.arange(4)[:, None] - jnp.arange(4)[None]


def _rotate(x, size):
  """Rotary positions of the first units of ``[batch, S, heads, d]``."""
  frequency = 0.3 ** jnp.arange(size // 2, dtype=x.dtype)
  angle = jnp.arange(4, dtype=x.dtype)[:, None] * frequency[None]
  cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
  a, b = jnp.split(x[..., :size], 2, -1)
  parts = [a * cos - b * sin, b * cos + a * sin, x[..., size:]]
  return jnp.concatenate(parts, -1)


def _attend(q, k, v, bias=0.0):
  scores = jnp.einsum('bqhd,bkhd->bhqk', q, k) + bias
  y = jnp.einsum('bhqk,bkhd->bqhd', jax.nn.softmax(scores), v)
  return y.reshape(*y.shape[:2], -1)


def _heads(y, *sizes):
  return y.reshape(*y.shape[:2], *sizes)


def _model(apply, order, blind=(), **shapes):
  inputs = (base.normal(2, 4, 3),)
  return base.Model(apply, base.draw(shapes), inputs, order, blind)


def unequal_parts():
  def apply(p, x):
    y = _heads(x @ p['w'], 2, 7)
    a, b = (_heads(part, -1) for part in (y[..., :3], y[..., 3:]))
    return jnp.tanh(a) @ p['a'] + jnp.sin(b) @ p['b']

  # 2 heads, 3 and 4 units in each.
  order = f(2) * f(3) ** 2 * f(4) ** 2
  return _model(apply, order, w=(3, 14), a=(6, 2), b=(8, 2))


def neox():
  def apply(p, x):
    h = x @ p['in']
    q, k, v = jnp.split(_heads(h @ p['qkv'], 2, 21), [7, 14], -1)
    return (h + _attend(_rotate(q, 4), _rotate(k, 4), v) @ p['o']) @ p['out']

  # Stream 6; 2 heads; the 3 units of queries and keys that are not rotated, and
  # the 7 of values, in each.
  order = f(6) * f(2) * f(3) ** 2 * f(7) ** 2
  return _model(
    apply, order, **{'in': (3, 6)}, qkv=(6, 42), o=(14, 6), out=(6, 2)
  )


def bloom():
  def apply(p, x):
    y = _heads(base.affine(x, p['qkv'], p['qkv_bias']), 2, 3, 4)
    slopes = 2.0 ** -jnp.arange(1, 3, dtype=x.dtype)[:, None, None]
    bias = slopes * jnp.abs(_DISTANCE)[None].astype(x.dtype)
    return _attend(*(y[..., i, :] for i in range(3)), bias[None]) @ p['o']

  # The slopes pin the 2 heads; 4 units of queries and keys, and of values.
  order = f(4) ** 2 * f(4) ** 2
  blind = ('qkv_bias:1',)
  shapes = {'qkv': (3, 24), 'qkv_bias': (24,), 'o': (8, 2)}
  return _model(apply, order, blind, **shapes)


def falcon():
  def apply(p, x):
    y = _heads(x @ p['qkv'], 2, 5, 4)
    q, k, v = y[..., :3, :], y[..., 3, :], y[..., 4, :]
    scores = jax.nn.softmax(jnp.einsum('bqgid,bkgd->bgiqk', q, k))
    y = jnp.einsum('bgiqk,bkgd->bqgid', scores, v)
    return _heads(y, 24) @ p['o']

  # 2 groups of 3 queries, a key and a value; their units, 4 in each group.
  order = f(2) * f(3) ** 2 * f(4) ** 2 * f(4) ** 2
  return _model(apply, order, qkv=(3, 40), o=(24, 2))


def latent_attention():
  def apply(p, x):
    q = _heads(x @ p['q'], 2, 5)
    latent, turned = jnp.split(x @ p['down'], [6], -1)
    k, v = jnp.split(_heads(latent @ p['up'], 2, 7), [3], -1)
    scores = jnp.einsum('bqhd,bkhd->bhqk', q[..., :3], k)
    turned = _rotate(turned[:, :, None], 2)[:, :, 0]
    scores += jnp.einsum('bqhd,bkd->bhqk', _rotate(q[..., 3:], 2), turned)
    y = jnp.einsum('bhqk,bkhd->bqhd', jax.nn.softmax(scores), v)
    return _heads(y, 8) @ p['o']

  # 2 heads; in each 3 units of queries and keys, 4 of values; 6 latents. The
  # rotated units are pinned.
  order = f(2) * f(3) ** 2 * f(4) ** 2 * f(6)
  return _model(apply, order, q=(3, 10), down=(3, 8), up=(6, 14), o=(8, 2))


def partial_rotary():
  def apply(p, x):
    q, k, v = jnp.split(x @ p['qkv'], [10, 20], -1)
    q, k = (_rotate(_heads(y, 2, 5), 2) for y in (q, k))
    return _attend(q, k, _heads(v, 2, 4)) @ p['o']

  # A sum of products of sums: 2 heads; 3 units that are not rotated; 4 values.
  order = f(2) * f(3) ** 2 * f(4) ** 2
  return _model(apply, order, qkv=(3, 28), o=(8, 2))


def nested_parts():
  def apply(p, x):
    y = _heads(x @ p['w'], 2, 13)
    z = _heads(y[..., :10], 2, 2, 5)
    a = jnp.tanh(_heads(z[..., :2], -1)) @ p['a']
    b = jnp.sin(_heads(z[..., 2:], -1)) @ p['b']
    return a + b + jnp.cos(_heads(y[..., 10:], -1)) @ p['c']

  # h * (g * (a + b) + c): 2 heads of 2 groups of 2 and 3 units, and of 3 more.
  order = f(2) * f(2) ** 2 * f(2) ** 4 * f(3) ** 4 * f(3) ** 2
  return _model(apply, order, w=(3, 26), a=(8, 2), b=(12, 2), c=(6, 2))
