"""Transformers and related models."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from tests.align.find.zoo import base

f = base.factorial


class Block(nn.Module):
  heads: int
  size: int
  hidden: int

  @nn.compact
  def __call__(self, h, mask=None):
    y = nn.LayerNorm()(h)
    h = h + nn.MultiHeadDotProductAttention(
      self.heads, qkv_features=self.heads * self.size
    )(y, mask=mask)
    y = nn.gelu(nn.Dense(self.hidden)(nn.LayerNorm()(h)))
    return h + nn.Dense(h.shape[-1])(y)


class Transformer(nn.Module):
  @nn.compact
  def __call__(self, tokens):
    embed = nn.Embed(11, 10)
    init = nn.initializers.normal(1.0)
    h = embed(tokens)
    h = h + self.param('position', init, (5, 10))[None]
    mask = nn.make_causal_mask(tokens)
    for _ in range(2):
      h = Block(3, 4, 7)(h, mask)
    return embed.attend(nn.LayerNorm()(h))


def transformer():
  x = base.tokens(2, 5, 11)
  # Stream 10; in both layers 3 heads, whose 4 units of query and key, and 4
  # units of value and output, are permuted within each head; hidden 7.
  order = f(10) * (f(3) * f(4) ** 3 * f(4) ** 3 * f(7)) ** 2
  key = 'params/Block_{}/MultiHeadDotProductAttention_0/key/bias'
  blind = (key.format(0), key.format(1))
  return base.Model(*base.linen(Transformer(), x), (x,), order, blind)


class Stacked(nn.Module):
  @nn.compact
  def __call__(self, x):
    h = nn.Dense(8)(x)
    step = lambda block, h: (block(h), None)
    layers = nn.scan(
      step,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      length=3,
    )
    h, _ = layers(Block(3, 2, 5, name='layers'), h)
    return nn.Dense(4)(nn.LayerNorm()(h))


def scan_transformer():
  x = base.normal(2, 4, 6)
  # One stream; heads, units of heads and hidden units in each of 3 layers.
  order = f(8) * (f(3) * f(2) ** 3 * f(2) ** 3 * f(5)) ** 3
  blind = ('params/layers/MultiHeadDotProductAttention_0/key/bias',)
  return base.Model(*base.linen(Stacked(), x), (x,), order, blind)


def _rotate(x):
  """Rotary positions of ``[batch, S, heads, d]``, in the half-split layout."""
  size = x.shape[-1]
  frequency = 100.0 ** (-2.0 / size * jnp.arange(size // 2, dtype=x.dtype))
  angle = jnp.arange(x.shape[1], dtype=x.dtype)[:, None] * frequency[None]
  cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
  a, b = jnp.split(x, 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _grouped(q, k, v):
  """Causal attention of ``[batch, S, heads, d]`` with fewer key heads."""
  batch, length, _, size = q.shape
  q = q.reshape(batch, length, k.shape[2], -1, size)
  scores = jnp.einsum('bqkgd,bskd->bkgqs', q, k) / size**0.5
  seen = jnp.tril(jnp.ones((length, length), bool))[None, None, None]
  scores = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
  return jnp.einsum('bkgqs,bskd->bqkgd', scores, v)


def _llama(p, tokens, *, rotary, normal, library=False):
  def heads(y, w):
    return (y @ w).reshape(*y.shape[:2], -1, 4)

  h = p['embedding'][tokens]
  for layer in p['layers']:
    y = base.rms_norm(h, layer['norm1_scale'])
    q, k, v = (heads(y, layer[name]) for name in 'qkv')
    if normal:
      q = base.rms_norm(q, layer['q_scale'])
      k = base.rms_norm(k, layer['k_scale'])
    if rotary:
      q, k = _rotate(q), _rotate(k)
    if library:
      y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    else:
      y = _grouped(q, k, v)
    h = h + y.reshape(*y.shape[:2], -1) @ layer['o']
    y = base.rms_norm(h, layer['norm2_scale'])
    h = h + (jax.nn.silu(y @ layer['gate']) * (y @ layer['up'])) @ layer['down']
  return base.rms_norm(h, p['scale']) @ p['out']


def _llama_model(order, *, rotary=False, normal=False, library=False):
  # 2 key and value heads of size 4, each read by 3 queries.
  layer = {
    'norm1_scale': (10,), 'q': (10, 24), 'k': (10, 8), 'v': (10, 8),
    'o': (24, 10), 'norm2_scale': (10,), 'gate': (10, 7), 'up': (10, 7),
    'down': (7, 10),
  }  # fmt: skip
  if normal:
    layer |= {'q_scale': (4,), 'k_scale': (4,)}
  shapes = {
    'embedding': (9, 10), 'layers': [layer, layer], 'scale': (10,),
    'out': (10, 9),
  }  # fmt: skip
  apply = functools.partial(
    _llama, rotary=rotary, normal=normal, library=library
  )
  inputs = (base.tokens(2, 5, 9),)
  if library:
    apply = base.lenient(apply)
  params = base.draw(shapes)
  return base.Model(apply, params, inputs, order, narrow=library)


def llama():
  # Stream; in each layer 2 key heads, the 3 queries of each, the 4 units of
  # each key head's value; hidden 7. Rotation fixes the units of keys.
  order = f(10) * (f(2) * f(3) ** 2 * f(4) ** 2 * f(7)) ** 2
  return _llama_model(order, rotary=True)


def llama_library():
  # The same with ``jax.nn.dot_product_attention``: softmax is in float32.
  order = f(10) * (f(2) * f(3) ** 2 * f(4) ** 2 * f(7)) ** 2
  return _llama_model(order, rotary=True, library=True)


def llama_without_positions():
  # Also the 4 units of each key head, shared by its 3 queries.
  order = f(10) * (f(2) * f(3) ** 2 * f(4) ** 2 * f(4) ** 2 * f(7)) ** 2
  return _llama_model(order)


def llama_key_norm():
  # All heads share the scales of queries and keys, so one order of units.
  order = f(10) * (f(2) * f(3) ** 2 * f(4) * f(4) ** 2 * f(7)) ** 2
  return _llama_model(order, normal=True)


def llama_rotary_key_norm():
  # The rotation pins the units of keys, whatever the scales are.
  order = f(10) * (f(2) * f(3) ** 2 * f(4) ** 2 * f(7)) ** 2
  return _llama_model(order, rotary=True, normal=True)


def _attend(q, k, v):
  """Heads ``[batch, H, S, d]``."""
  scores = jnp.einsum('bhqd,bhkd->bhqk', q, k) * q.shape[-1] ** -0.5
  return jnp.einsum('bhqk,bhkd->bhqd', jax.nn.softmax(scores), v)


_FUSED = {
  'qkv': (7, 36), 'qkv_bias': (36,), 'o': (12, 7), 'o_bias': (7,),
  'up': (7, 5), 'up_bias': (5,), 'down': (5, 7), 'scale': (7,),
  'shift': (7,), 'in': (3, 7), 'out': (7, 2),
}  # fmt: skip


def _fused(p, x, cut):
  h = x @ p['in']
  y = base.layer_norm(h, p['scale'], p['shift'])
  y = _attend(*cut(base.affine(y, p['qkv'], p['qkv_bias'])))
  y = y.swapaxes(1, 2).reshape(*x.shape[:2], -1)
  h = h + base.affine(y, p['o'], p['o_bias'])
  y = jax.nn.relu(base.affine(h, p['up'], p['up_bias'])) @ p['down']
  return (h + y) @ p['out']


def _fused_model(cut):
  apply = functools.partial(_fused, cut=cut)
  # Stream; 3 heads; 4 units of query and key, and of value, in each; hidden.
  order = f(7) * f(3) * f(4) ** 3 * f(4) ** 3 * f(5)
  inputs, blind = (base.normal(2, 5, 3),), ('qkv_bias:1',)
  return base.Model(apply, base.draw(_FUSED), inputs, order, blind)


def fused_split():
  def cut(y):
    heads = lambda x: x.reshape(*x.shape[:2], 3, 4).swapaxes(1, 2)
    return map(heads, jnp.split(y, 3, -1))

  return _fused_model(cut)


def fused_reshape():
  def cut(y):
    y = y.reshape(*y.shape[:2], 3, 3, 4)  # batch, S, qkv, heads, units
    return (y[:, :, i].swapaxes(1, 2) for i in range(3))

  return _fused_model(cut)


def fused_unstack():
  def cut(y):
    y = y.reshape(*y.shape[:2], 3, 3, 4)
    return jnp.unstack(y.transpose(2, 0, 3, 1, 4))

  return _fused_model(cut)


def relative_bias():
  def apply(p, x):
    h = x @ p['in']
    q, k, v = (jnp.einsum('bsd,dhe->bhse', h, p[n]) for n in ('q', 'k', 'v'))
    distance = jnp.arange(5)[:, None] - jnp.arange(5)[None] + 4
    scores = jnp.einsum('bhqd,bhkd->bhqk', q, k)
    scores = scores + p['table'][distance].transpose(2, 0, 1)[None]
    y = jnp.einsum('bhqk,bhkd,hdo->bqo', jax.nn.softmax(scores), v, p['o'])
    return (h + y) @ p['out']

  shapes = {
    'in': (3, 7), 'q': (7, 6, 4), 'k': (7, 6, 4), 'v': (7, 6, 2),
    'o': (6, 2, 7), 'table': (9, 6), 'out': (7, 2),
  }  # fmt: skip
  # Stream; 6 heads, on the table of distances too; units 4 and 2 in each.
  order = f(7) * f(6) * f(4) ** 6 * f(2) ** 6
  return base.Model(apply, base.draw(shapes), (base.normal(2, 5, 3),), order)


def perceiver():
  def apply(p, x):
    q = jnp.einsum('nd,dhe->hne', p['latents'], p['q'])
    k, v = (jnp.einsum('bsi,ihe->bhse', x, p[n]) for n in ('k', 'v'))
    scores = jax.nn.softmax(jnp.einsum('hne,bhse->bhns', q, k))
    h = jnp.einsum('bhns,bhse,hed->bnd', scores, v, p['o'])
    h = h + p['latents'][None]
    h = h + jax.nn.relu(base.affine(h, p['up'], p['up_bias'])) @ p['down']
    return h.max(1) @ p['out']

  shapes = {
    'latents': (5, 8), 'q': (8, 2, 4), 'k': (3, 2, 4), 'v': (3, 2, 6),
    'o': (2, 6, 8), 'up': (8, 7), 'up_bias': (7,), 'down': (7, 8),
    'out': (8, 2),
  }  # fmt: skip
  # The 5 latents are a set; stream 8; 2 heads with units 4 and 6; hidden 7.
  order = f(5) * f(8) * f(2) * f(4) ** 2 * f(6) ** 2 * f(7)
  return base.Model(apply, base.draw(shapes), (base.normal(4, 3, 3),), order)


def equal_sizes():
  def apply(p, x):
    h = x @ p['in'] + p['position'][None]
    q, k, v = (jnp.einsum('bsd,dhe->bhse', h, p[n]) for n in ('q', 'k', 'v'))
    y = _attend(q, k, v)
    h = h + jnp.einsum('bhse,hed->bsd', y, p['o'])
    h = h + jax.nn.relu(base.affine(h, p['up'], p['up_bias'])) @ p['down']
    return h @ p['out']

  square, cube = (4, 4), (4, 4, 4)
  shapes = {
    'in': square, 'position': square, 'q': cube, 'k': cube, 'v': cube,
    'o': cube, 'up': square, 'up_bias': (4,), 'down': square, 'out': square,
  }  # fmt: skip
  # Everything has size 4, inputs and positions too: stream; heads; units of
  # query and key and of value in each head; hidden.
  order = f(4) * f(4) * f(4) ** 4 * f(4) ** 4 * f(4)
  return base.Model(apply, base.draw(shapes), (base.normal(4, 4, 4),), order)
