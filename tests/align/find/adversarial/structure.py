"""Heads, shared labels, reshapes and products that are easy to confuse."""

import jax
import jax.numpy as jnp

from tests.align.find.adversarial import base as adversarial
from tests.align.find.zoo import base

f = base.factorial
case, hidden = adversarial.case, adversarial.hidden
NONE = ()
SEQUENCE = (base.normal(2, 5, 3),)
_jitted = jax.jit(lambda h, w: jnp.tanh(h @ w))


def _heads(y, count):
  return y.reshape(*y.shape[:-1], count, -1)


def _cross_head_gram(p, x):
  q = _heads(jnp.tanh(x @ p['a']), 3)
  return jnp.einsum('bhe,bge,hgo->bo', q, q, p['b'])


def _talking_heads(p, x):
  q, k = (_heads(x @ p[n], 3) for n in 'qk')
  v = _heads(x @ p['v'], 2)
  scores = jnp.einsum('bqhd,bkhd->bhqk', q, k)
  scores = jax.nn.softmax(jnp.einsum('bhqk,hg->bgqk', scores, p['mix']))
  y = jnp.einsum('bgqk,bkgd->bqgd', scores, v)
  return y.reshape(*y.shape[:2], -1) @ p['o']


def attention(p, x, change_q=lambda p, q: q, bias=None, over=-1):
  """Three heads of size 4 for queries and keys, 2 for values."""
  q, k, v = (_heads(x @ p[n], 3) for n in 'qkv')
  scores = jnp.einsum('bqhd,bkhd->bhqk', change_q(p, q), k)
  if bias is not None:
    scores = scores + bias
  scores = jax.nn.softmax(scores, axis=over)
  y = jnp.einsum('bhqk,bkhd->bqhd', scores, v)
  return y.reshape(*y.shape[:2], -1) @ p['o']


def grouped(p, x, copy):
  """Attends with six heads of queries to two heads of keys, copied thrice."""
  q, k, v = _heads(x @ p['q'], 6), _heads(x @ p['k'], 2), _heads(x @ p['v'], 2)
  scores = jnp.einsum('bqhd,bkhd->bhqk', q, copy(k))
  y = jnp.einsum('bhqk,bkhd->bqhd', jax.nn.softmax(scores), copy(v))
  return y.reshape(*y.shape[:2], -1) @ p['o']


def multi_query(p, x):
  """Attends with six heads of queries to one head of keys and values."""
  q, k, v = _heads(x @ p['q'], 6), x @ p['k'], x @ p['v']
  scores = jax.nn.softmax(jnp.einsum('bqhd,bkd->bhqk', q, k))
  y = jnp.einsum('bhqk,bkd->bqhd', scores, v)
  return y.reshape(*y.shape[:2], -1) @ p['o']


ATTENTION = {'q': (3, 12), 'k': (3, 12), 'v': (3, 6), 'o': (6, 2)}
GROUPED = {'q': (3, 24), 'k': (3, 8), 'v': (3, 10), 'o': (30, 2)}


def _with(change_q):
  return lambda p, x: attention(p, x, change_q)


def _slopes(p, x):
  distance = jnp.arange(5)[:, None] - jnp.arange(5)[None]
  slopes = 2.0 ** -jnp.arange(1, 4, dtype=x.dtype)
  bias = slopes[:, None, None] * jnp.abs(distance)[None].astype(x.dtype)
  return attention(p, x, bias=bias[None])


def _partial_rotation(p, q):
  angle = jnp.arange(5, dtype=q.dtype)[None, :, None, None]
  a, b, rest = q[..., :1], q[..., 1:2], q[..., 2:]
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)


def _heads_first_fused(p, x):
  y = _heads(x @ p['qkv'], 3).reshape(*x.shape[:2], 3, 3, 4)
  q, k, v = (y[:, :, :, i] for i in range(3))
  scores = jax.nn.softmax(jnp.einsum('bqhd,bkhd->bhqk', q, k))
  y = jnp.einsum('bhqk,bkhd->bqhd', scores, v)
  return y.reshape(*y.shape[:2], -1) @ p['o']


def _projection_free(p, x):
  h = x @ p['a'] + p['position'][None]
  scores = jax.nn.softmax(jnp.einsum('bqd,bkd->bqk', h, h))
  return (scores @ h) @ p['b']


def _two_splits(first, second):
  def use(p, h):
    u = jnp.tanh(h @ p['u'])
    one = jnp.einsum('bij,ijo->bo', u.reshape(-1, *first), p['c'])
    two = jnp.einsum('bij,ijo->bo', u.reshape(-1, *second), p['d'])
    return one + jnp.tanh(two)

  return use


def _mapped_heads(p, x):
  def head(q, k, v, o):
    scores = jax.nn.softmax((x @ q) @ (x @ k).mT)
    return scores @ (x @ v) @ o

  return jax.vmap(head)(p['q'], p['k'], p['v'], p['o']).sum(0)


def _ensemble(p, x):
  one = lambda p: jnp.tanh(jnp.tanh(x @ p['a']) @ p['b'])
  return jax.vmap(one)(p).mean(0)


def _ensemble_with_shared_units(p, x):
  one = lambda a: jnp.tanh(x @ a)
  return jax.vmap(one)(p['a']).mean(0) @ p['b']


def _pixel_shuffle(p, x):
  h = jnp.tanh(jnp.einsum('bhwi,io->bhwo', x, p['a']))
  b, m, n, _ = h.shape
  h = h.reshape(b, m, n, 2, 2, 5).transpose(0, 1, 3, 2, 4, 5)
  h = h.reshape(b, 2 * m, 2 * n, 5)
  return jax.lax.conv_general_dilated(
    h, p['w'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


HEADS = {
  # The Gram matrix mixes heads and keeps units: one order for all heads.
  'cross_head_gram': case(
    _cross_head_gram, {'a': (3, 12), 'b': (3, 3, 2)}, f(3) * f(4)
  ),
  'talking_heads': case(
    _talking_heads,
    {'q': (3, 12), 'k': (3, 12), 'v': (3, 6), 'mix': (3, 2), 'o': (6, 2)},
    f(3) * f(4) ** 3 * f(2) * f(3) ** 2, inputs=SEQUENCE,
  ),
  'heads': case(
    attention, ATTENTION, f(3) * f(4) ** 3 * f(2) ** 3, inputs=SEQUENCE
  ),
  'shared_head_scale': case(
    _with(lambda p, q: q * p['s'][None, None, None]), ATTENTION | {'s': (4,)},
    f(3) * f(4) * f(2) ** 3, inputs=SEQUENCE,
  ),
  'scale_of_every_head': case(
    _with(lambda p, q: q * p['s'][None, None]), ATTENTION | {'s': (3, 4)},
    f(3) * f(4) ** 3 * f(2) ** 3, inputs=SEQUENCE,
  ),
  'scale_of_heads': case(
    _with(lambda p, q: q * p['s'][None, None, :, None]),
    ATTENTION | {'s': (3,)},
    f(3) * f(4) ** 3 * f(2) ** 3, inputs=SEQUENCE,
  ),
  'queries_normed_over_heads': case(
    _with(lambda p, q: q - q.mean(2, keepdims=True)), ATTENTION,
    f(3) * f(4) * f(2) ** 3, inputs=SEQUENCE,
  ),
  'queries_normed_by_head': case(
    _with(lambda p, q: q - q.mean(3, keepdims=True)), ATTENTION,
    f(3) * f(4) ** 3 * f(2) ** 3, inputs=SEQUENCE,
  ),
  # A cumulative sum over heads pins them and combines their units.
  'queries_cumulated_over_heads': case(
    _with(lambda p, q: jnp.cumsum(q, 2)), ATTENTION,
    f(4) * f(2) ** 3, inputs=SEQUENCE,
  ),
  'queries_of_the_next_head': case(
    _with(lambda p, q: q + jnp.roll(q, 1, 2)), ATTENTION,
    3 * f(4) * f(2) ** 3, least=1, inputs=SEQUENCE,
  ),
  'queries_convolved_over_heads': case(
    _with(lambda p, q: jnp.einsum('bshd,hg->bsgd', q, jnp.eye(3, dtype=q.dtype)
    + jnp.eye(3, k=1, dtype=q.dtype))), ATTENTION,
    f(4) * f(2) ** 3, inputs=SEQUENCE,
  ),
  'queries_sorted_by_head': case(
    _with(lambda p, q: jnp.sort(q, 2)), ATTENTION,
    f(4) * f(3) ** 4 * f(2) ** 3, least=1, inputs=SEQUENCE,
  ),
  'queries_flattened_and_summed': case(
    _with(
      lambda p, q: q * q.reshape(*q.shape[:2], 12).sum(-1)[..., None, None]
    ),
    ATTENTION, f(3) * f(4) ** 3 * f(2) ** 3, inputs=SEQUENCE,
  ),
  # Constant slopes pin the heads; units stay free in every head.
  'slopes': case(
    _slopes, ATTENTION, f(4) ** 3 * f(2) ** 3, inputs=SEQUENCE
  ),
  'partial_rotation': case(
    _with(_partial_rotation), ATTENTION,
    f(3) * f(2) ** 3 * f(2) ** 3, inputs=SEQUENCE,
  ),
  'heads_before_fused': case(
    _heads_first_fused, {'qkv': (3, 36), 'o': (12, 2)},
    f(3) * f(4) ** 3 * f(4) ** 3, inputs=SEQUENCE,
  ),
  'projection_free': case(
    _projection_free, {'a': (3, 6), 'position': (5, 6), 'b': (6, 2)}, f(6),
    inputs=SEQUENCE,
  ),
  'mapped_heads': case(
    _mapped_heads,
    {'q': (3, 3, 4), 'k': (3, 3, 4), 'v': (3, 3, 2), 'o': (3, 2, 2)},
    f(3) * f(4) ** 3 * f(2) ** 3, inputs=SEQUENCE,
  ),
  'ensemble': case(
    _ensemble, {'a': (4, 3, 6), 'b': (4, 6, 2)}, f(4) * f(6) ** 4
  ),
  # Members are averaged unit by unit: they may be permuted within a unit, but
  # all members have the same order of units.
  'ensemble_with_shared_units': case(
    _ensemble_with_shared_units, {'a': (4, 3, 6), 'b': (6, 2)},
    f(6) * f(4) ** 6, least=f(4) * f(6),
  ),
  'mean_over_heads': hidden(
    lambda p, h: _heads(h @ p['u'], 3).mean(-2),
    f(6) * f(4) * f(3) ** 4, least=f(6) * f(3) * f(4), u=(6, 12), b=(4, 2),
  ),
}  # fmt: skip

SHARED = {
  'recurrent': hidden(
    lambda p, h: jnp.tanh(jnp.tanh(h @ p['w']) @ p['w'] + h), f(6), w=(6, 6)
  ),
  'map_and_transpose': hidden(
    lambda p, h: jnp.tanh(jnp.tanh(h @ p['w']) @ p['w'].T),
    f(6) * f(5), w=(6, 5),
  ),
  'sum_with_transpose': hidden(
    lambda p, h: jnp.tanh(h @ (p['w'] + p['w'].T)), f(6), w=(6, 6)
  ),
  'sum_with_transpose_of_inputs': case(
    lambda p, x: x @ (p['w'] + p['w'].T), {'w': (3, 3)}, 1
  ),
  'square_of_a_map': hidden(
    lambda p, h: jnp.tanh(h @ (p['w'] @ p['w'])), f(6), w=(6, 6)
  ),
  'gram_of_a_map': hidden(
    lambda p, h: jnp.tanh(h @ (p['w'] @ p['w'].T)), f(6) * f(5), w=(6, 5)
  ),
  'diagonal': hidden(
    lambda p, h: h * jnp.einsum('ii->i', p['w'])[None], f(6), least=1, w=(6, 6)
  ),
  'trace': hidden(
    lambda p, h: h * jnp.einsum('ii->', p['w']), f(6) ** 2, least=f(6),
    w=(6, 6),
  ),
  # A row and a column of the identity are permuted together.
  'identity_added': hidden(
    lambda p, h: jnp.tanh(h @ (p['w'] + jnp.eye(6, dtype=h.dtype))),
    f(6), least=1, w=(6, 6),
  ),
  'outer_product': hidden(
    lambda p, h: jnp.tanh(h @ jnp.outer(p['u'], p['v'])),
    f(6) * f(5), u=(6,), v=(5,), b=(5, 2),
  ),
  'outer_product_with_itself': hidden(
    lambda p, h: jnp.tanh(h @ jnp.outer(p['u'], p['u'])), f(6), u=(6,)
  ),
  'bilinear': hidden(
    lambda p, h: jnp.einsum('bi,bj,ijo->bo', h, h, p['t']), f(6),
    t=(6, 6, 2), b=NONE,
  ),
  'inverse': hidden(
    lambda p, h: h @ jnp.linalg.inv(p['w']), f(6) ** 2, w=(6, 6)
  ),
  'eigenvalues': hidden(
    lambda p, h: h * jnp.linalg.eigvalsh(h.T @ h).max(), f(6), least=1
  ),
  # One jitted function, called with three maps of one shape.
  'jitted_once': case(
    lambda p, x: _jitted(_jitted(_jitted(x @ p['a'], p['u']), p['v']), p['w'])
    @ p['b'],
    {'a': (3, 6), 'u': (6, 6), 'v': (6, 6), 'w': (6, 6), 'b': (6, 2)},
    f(6) ** 4,
  ),
  'two_paths_to_one_product': hidden(
    lambda p, h: h * jnp.tanh(h @ p['u']), f(6), u=(6, 6)
  ),
  'one_bias_for_two_layers': hidden(
    lambda p, h: jnp.tanh(jnp.tanh(h @ p['u'] + p['c'][None]) @ p['v']
                          + p['c'][None]),
    f(6) ** 2, u=(6, 6), v=(6, 6), c=(6,),
  ),
}  # fmt: skip

RESHAPED = {
  # (2, 6) and (6, 2) refine to (2, 3, 2): a tower of three.
  'nested_splits': hidden(
    _two_splits((2, 6), (6, 2)), f(6) * f(2) * f(3) ** 2 * f(2) ** 6,
    u=(6, 12), c=(2, 6, 2), d=(6, 2, 2), b=NONE,
  ),
  'crossing_splits': hidden(
    _two_splits((3, 4), (4, 3)), f(6) * 288, least=f(6),
    u=(6, 12), c=(3, 4, 2), d=(4, 3, 2), b=NONE,
  ),
  # Rows and columns of the same 12 units.
  'transposed_split': hidden(
    lambda p, h: _two_splits((3, 4), (3, 4))(p, h)
    + jnp.einsum('bij,jio->bo', jnp.sin(h @ p['u']).reshape(-1, 3, 4), p['e']),
    f(6) * f(3) * f(4) ** 3, least=f(6) * f(4) * f(3) ** 4,
    u=(6, 12), c=(3, 4, 2), d=(3, 4, 2), e=(4, 3, 2), b=NONE,
  ),
  'reordered_product': hidden(
    lambda p, h: jnp.tanh(h @ p['u']).reshape(-1, 3, 4).mT.reshape(-1, 12)
    @ p['c'],
    f(6) * f(12), least=f(6) * f(4) * f(3) ** 4, u=(6, 12), c=(12, 2), b=NONE,
  ),
  'reordered_and_added': hidden(
    lambda p, h: (lambda y: (y + y.reshape(-1, 3, 4).mT.reshape(-1, 12))
                  @ p['c'])(jnp.tanh(h @ p['u'])),
    f(6) * f(12), least=f(6), u=(6, 12), c=(12, 2), b=NONE,
  ),
  'merged_axes': case(
    lambda p, x: jnp.tanh(x @ p['a'].reshape(3, 12)) @ p['b'],
    {'a': (3, 3, 4), 'b': (12, 2)}, f(12), least=f(4) * f(3) ** 4,
  ),
  'pixel_shuffle': case(
    _pixel_shuffle, {'a': (3, 20), 'w': (3, 3, 5, 2)}, f(5),
    inputs=(base.normal(1, 3, 4, 3),),
  ),
  'outer_product_of_units': hidden(
    lambda p, h: (h[:, :, None] * jnp.sin(h @ p['u'])[:, None]).reshape(-1, 24),
    f(6) * f(4), u=(6, 4), b=(24, 2),
  ),
  'repeated': hidden(
    lambda p, h: jnp.repeat(h, 3, axis=-1), f(6) * f(3) ** 6, least=f(6),
    b=(18, 2),
  ),
  'tiled': hidden(
    lambda p, h: jnp.tile(h, (1, 3)), f(6) * f(3) ** 6, least=f(6), b=(18, 2)
  ),
  'kronecker': hidden(
    lambda p, h: jnp.tanh(h @ jnp.kron(p['u'], p['v'])),
    f(2) * f(3) * f(4) * f(5), u=(2, 4), v=(3, 5), b=(20, 2),
  ),
}  # fmt: skip

CASES = HEADS | SHARED | RESHAPED
