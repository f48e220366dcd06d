"""Attention under rotary embeddings, whose phases are known."""

import jax
import jax.numpy as jnp

from tests.align.gauges.rope import (
  angles,
  B,
  complexly,
  D,
  F,
  GROUPED,
  H,
  interleaved,
  on_all,
  pairs,
  partly,
  partly_interleaved,
  PLAIN,
  repeated,
  rolled,
  rotate_half,
  S,
  split,
)


def heads(y):
  return y.reshape(*y.shape[:2], -1, 2 * F)


def scores(q, k):
  return jnp.einsum('bqhd,bkhd->bhqk', q, k)


def attend(q, k, v, score=scores):
  """Grouped heads repeat the keys and values."""
  count = q.shape[2] // k.shape[2]
  k, v = jnp.repeat(k, count, 2), jnp.repeat(v, count, 2)
  y = jnp.einsum('bhqk,bkhd->bqhd', jax.nn.softmax(score(q, k)), v)
  return y.reshape(*y.shape[:2], -1)


def attention(rope=split, other=None, before=None, after=None, score=scores):
  """Attention with changes of queries and keys before and after RoPE."""

  def apply(p, x, positions=None):
    q, k, v = (heads(x @ p[n]) for n in 'qkv')
    if before:
      q, k = before(p, q, k)
    angle = angles(positions)
    q, k = rope(q, angle), (other or rope)(k, angle)
    if after:
      q, k = after(p, q, k)
    return attend(q, k, v, score) @ p['o']

  return apply


def library(p, x):
  q, k, v = (heads(x @ p[n]) for n in 'qkv')
  q, k = split(q, angles()), split(k, angles())
  with jax.numpy_dtype_promotion('standard'):
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
  return y.reshape(*y.shape[:2], -1) @ p['o']


def head_axes(p, x):
  """Heads are an axis of the leaves, and come first."""
  q, k, v = (jnp.einsum('bsd,hde->bhse', x, p[n]) for n in 'qkv')
  rope = lambda y: rotate_half(y.swapaxes(1, 2), angles()).swapaxes(1, 2)
  weights = jax.nn.softmax(rope(q) @ rope(k).mT)
  return jnp.einsum('bhqk,bhke,hed->bqd', weights, v, p['o'])


def mapped(p, x):
  """One head, mapped over heads."""

  def head(w):
    rope = lambda y: split(y[:, :, None], angles())[:, :, 0]
    weights = jax.nn.softmax(rope(x @ w['q']) @ rope(x @ w['k']).mT)
    return weights @ (x @ w['v']) @ w['o']

  return jax.vmap(head)(p).sum(0)


def multi_query(p, x):
  q, k, v = heads(x @ p['q']), (x @ p['k'])[:, :, None], (x @ p['v'])
  q, k = split(q, angles()), split(k, angles())[:, :, 0]
  weights = jax.nn.softmax(jnp.einsum('bqhd,bkd->bhqk', q, k))
  y = jnp.einsum('bhqk,bkd->bqhd', weights, v)
  return y.reshape(*y.shape[:2], -1) @ p['o']


def scanned(p, x):
  apply = attention()
  step = lambda h, w: (h + apply(w, h), None)
  h, _ = jax.lax.scan(step, x @ p['e'], {n: p[n] for n in 'qkvo'})
  return h @ p['u']


def neox(p, x):
  """Queries, keys and values inside of heads, two thirds of them rotated."""
  y = (x @ p['w'] + p['b'][None, None]).reshape(B, S, H, 18)
  q, k, v = jnp.split(y, 3, -1)
  return attend(partly(q, angles()), partly(k, angles()), v) @ p['o']


def latent(p, x):
  """Keys of positions are shared by the heads."""
  q = (x @ p['q']).reshape(B, S, H, 7)
  c = x @ p['c']
  kv = (c[..., :4] @ p['kv']).reshape(B, S, H, 6)
  rope = lambda y: split(y, angles(count=2))
  turned = jnp.broadcast_to(rope(c[..., None, 4:]), (B, S, H, 4))
  q = jnp.concatenate([q[..., :3], rope(q[..., 3:])], -1)
  k = jnp.concatenate([kv[..., :3], turned], -1)
  return attend(q, k, kv[..., 3:]) @ p['o']


def unit(x):
  return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def norm_of(gain):
  return lambda p, q, k: (unit(q) * gain(p), unit(k))


def merged(p, x):
  return attention()({**p, 'q': p['q'] + p['a'] @ p['b']}, x)


def looked_up(p, x, positions):
  """Tables of cosines and sines, of which rows are looked up."""
  table = angles(jnp.arange(9)[None])[0, :, 0]
  table = jnp.concatenate([table, table], -1)
  cos, sin = (f(table)[positions][:, :, None] for f in (jnp.cos, jnp.sin))

  def rope(y, angle):
    other = jnp.concatenate([-y[..., F:], y[..., :F]], -1)
    return y * cos + other * sin

  return attention(rope)(p, x)


SINGLE = {n: (H, D, 6) for n in 'qkv'} | {'o': (H, 6, D)}
BIAS = lambda p, q, k: (q + p['b'].reshape(1, 1, H, 6), k + p['c'][None, None])
SIZES = jnp.exp(0.1 * on_all(jnp.concatenate([angles()] * 2, -1)))
SUMS = lambda x: x.sum(-1).transpose(0, 3, 1, 2)
TWICE = lambda x: jnp.concatenate([x, x])[None, None, None]
# The dimension by hand: 2 for each frequency and head of keys, the angle and
# the modulus; 1 if norms fix the modulus.
BY_HAND = {
  'split': (attention(), PLAIN, 2 * H * F),
  'rotate half': (attention(rotate_half), GROUPED, 2 * H * F),
  'rolled': (attention(rolled), PLAIN, 2 * H * F),
  'interleaved': (attention(interleaved), GROUPED, 2 * H * F),
  'pairs': (attention(pairs), PLAIN, 2 * H * F),
  'repeated': (attention(repeated), PLAIN, 2 * H * F),
  'complex': (attention(complexly), PLAIN, 2 * H * F),
  'partly': (attention(partly), GROUPED, 2 * H * 2),
  'partly interleaved': (attention(partly_interleaved), PLAIN, 2 * H * 2),
  'library': (library, GROUPED, 2 * H * F),
  'axes of heads': (head_axes, SINGLE, 2 * H * F),
  'mapped heads': (mapped, SINGLE, 2 * H * F),
  # All heads read one key.
  'multi-query': (
    multi_query, {**PLAIN, 'k': (D, 6), 'v': (D, 6)}, 2 * F,
  ),
  # In each of 3 layers.
  'scan': (
    scanned,
    {n: (3, 4, 12) for n in 'qkv'}
    | {'o': (3, 12, 4), 'e': (D, 4), 'u': (4, D)},
    3 * 2 * H * F,
  ),
  'fused and partly': (neox, {'w': (D, 36), 'b': (36,), 'o': (12, D)}, 8),
  'latent': (
    latent, {'q': (D, 14), 'c': (D, 8), 'kv': (4, 12), 'o': (6, D)}, 2 * 2,
  ),
  'biases': (
    attention(before=BIAS), {**PLAIN, 'b': (12,), 'c': (H, 6)}, 2 * H * F,
  ),
  'bias after': (
    attention(after=lambda p, q, k: (q + p['b'][None, None], k)),
    {**PLAIN, 'b': (H, 6)}, 2 * H * F,
  ),
  # A bias that the heads share.
  'shared bias': (
    attention(before=lambda p, q, k: (q + p['b'][None, None, None], k)),
    {**PLAIN, 'b': (6,)}, 2 * F,
  ),
  'norms': (attention(before=norm_of(lambda p: 1.0)), PLAIN, H * F),
  'gain of pairs': (
    attention(before=norm_of(lambda p: TWICE(p['g']))),
    {**PLAIN, 'g': (F,)}, H * F,
  ),
  'gain of entries': (
    attention(before=norm_of(lambda p: p['g'][None, None, None])),
    {**PLAIN, 'g': (6,)}, 0,
  ),
  'merged LoRA': (merged, {**PLAIN, 'a': (D, 2), 'b': (2, 12)}, 2 * H * F),
  'sum of products': (
    attention(score=lambda q, k: SUMS(q[:, :, None] * k[:, None])),
    PLAIN, 2 * H * F,
  ),
  # Any turns of queries and keys, and factors of both parts, commute.
  'other frequencies': (
    attention(other=lambda x, a: split(x, -1.7 * a)), PLAIN, 2 * H * F,
  ),
  'factors of positions': (
    attention(after=lambda p, q, k: (q * SIZES, k / SIZES)), PLAIN, 2 * H * F,
  ),
}  # fmt: skip
