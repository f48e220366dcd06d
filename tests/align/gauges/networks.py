"""Networks whose signs, scales, rotations and linear maps are known."""

import jax
import jax.numpy as jnp
import numpy as np

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 3)))
IMAGE = jnp.asarray(RNG.normal(size=(2, 5, 5, 1)))
TOKENS = jnp.asarray(RNG.integers(0, 7, (2, 5)))


def shapes(**sizes):
  return {n: jax.ShapeDtypeStruct(s, jnp.float64) for n, s in sizes.items()}


def mlp(act):
  params = shapes(a=(3, 5), b=(5,), c=(5, 2))
  return lambda p, x: act(x @ p['a'] + p['b'][None]) @ p['c'], params, X


def gated(act):
  params = shapes(g=(3, 5), u=(3, 5), d=(5, 3))
  return lambda p, x: (act(x @ p['g']) * (x @ p['u'])) @ p['d'], params, X


def stream(norm, gains=False, layers=2):
  """A residual stream of width 6 with normalised, gated layers."""
  sizes = {'e': (3, 6), 'o': (6, 2)}
  for i in range(layers):
    sizes |= {f'u{i}': (6, 7), f'd{i}': (7, 6)}
    sizes |= {f'n{i}': (6,)} if gains else {}

  def apply(p, x):
    h = x @ p['e']
    for i in range(layers):
      n = norm(h) * p[f'n{i}'][None] if gains else norm(h)
      h = h + jax.nn.silu(n @ p[f'u{i}']) @ p[f'd{i}']
    return h @ p['o']

  return apply, shapes(**sizes), X


def rms(x):
  return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def layer_norm(x):
  return rms(x - jnp.mean(x, -1, keepdims=True))


def attention(bias=False):
  """Two heads of three units on inputs of width 3."""
  sizes = {'q': (3, 2, 3), 'k': (3, 2, 3), 'v': (3, 2, 3), 'o': (2, 3, 3)}
  if bias:
    sizes |= {f'{n}b': (2, 3) for n in 'qkv'}

  def apply(p, x):
    x = x[None]
    part = lambda n: (
      jnp.einsum('btd,dhu->bthu', x, p[n])
      + (p[f'{n}b'][None, None] if bias else 0)
    )
    scores = jnp.einsum('bthu,bshu->bhts', part('q'), part('k'))
    y = jnp.einsum('bhts,bshu->bthu', jax.nn.softmax(scores), part('v'))
    return jnp.einsum('bthu,hud->btd', y, p['o'])

  return apply, shapes(**sizes), X


def conv_net(act):
  params = shapes(a=(3, 3, 1, 4), b=(4,), c=(3, 3, 4, 5), d=(5, 2))

  def apply(p, x):
    conv = lambda x, w: jax.lax.conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    x = act(conv(x, p['a']) + p['b'][None, None, None])
    x = jax.lax.reduce_window(
      x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID'
    )
    return act(conv(x, p['c'])).mean((1, 2)) @ p['d']

  return apply, params, IMAGE


def batch_norm():
  params = shapes(a=(3, 5), m=(5,), v=(5,), g=(5,), b=(5,), c=(5, 2))

  def apply(p, x):
    spread = jax.lax.rsqrt(jnp.abs(p['v']) + 1e-3)
    x = (x @ p['a'] - p['m'][None]) * spread[None] * p['g'][None]
    return jax.nn.relu(x + p['b'][None]) @ p['c']

  return apply, params, X


def scanned(act):
  """Three layers of width 4 in a scan, from an embedding to an output."""
  params = shapes(e=(3, 4), w=(3, 4, 6), v=(3, 6, 4), o=(4, 2))

  def apply(p, x):
    step = lambda h, w: (h + act(rms(h) @ w[0]) @ w[1], None)
    h, _ = jax.lax.scan(step, x @ p['e'], (p['w'], p['v']))
    return h @ p['o']

  return apply, params, X


def embedded():
  params = shapes(t=(7, 4), u=(4, 5), d=(5, 7))
  act = jax.nn.relu
  return lambda p, t: act(p['t'][t] @ p['u']) @ p['d'], params, TOKENS


def low_rank():
  params = shapes(a=(3, 2), b=(2, 5), c=(5, 2))
  return lambda p, x: jnp.tanh(x @ p['a'] @ p['b']) @ p['c'], params, X


def fused():
  """Queries and keys in one leaf, cut after the product."""
  params = shapes(qk=(3, 8), o=(4, 2))

  def apply(p, x):
    q, k = jnp.split(x @ p['qk'], 2, axis=-1)
    return jnp.tanh((q @ k.T) @ x) @ p['o'][:3]

  return apply, params, X


def power():
  params = shapes(a=(3, 5), c=(5, 2))
  return lambda p, x: jnp.square(jax.nn.relu(x @ p['a'])) @ p['c'], params, X


def softplus():
  return mlp(jax.nn.softplus)


def cosine():
  """Similarity of two normalised maps: rotations, and no scale."""
  params = shapes(a=(3, 5), b=(3, 5))
  unit = lambda x: x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True))
  apply = lambda p, x: unit(x @ p['a']) @ unit(x @ p['b']).T
  return apply, params, X


# What acts, by hand: the number of actions of each kind, and the dimension of
# the continuous group. GL(n) has n^2, O(n) n (n - 1) / 2, fixing ones
# (n - 1)(n - 2) / 2, a scale for each unit n.
BY_HAND = {
  'relu': (mlp(jax.nn.relu), {'scale': 1}, 5),
  'leaky relu': (mlp(jax.nn.leaky_relu), {'scale': 1}, 5),
  'abs': (mlp(jnp.abs), {'scale': 1, 'sign': 1}, 5),
  'tanh': (mlp(jnp.tanh), {'sign': 1}, 0),
  'sin': (mlp(jnp.sin), {'sign': 1}, 0),
  'cos': (mlp(jnp.cos), {'sign': 1}, 0),
  'gelu': (mlp(jax.nn.gelu), {}, 0),
  'softplus': (softplus(), {}, 0),
  'sigmoid': (mlp(jax.nn.sigmoid), {}, 0),
  'identity': (mlp(lambda x: x), {'linear': 1}, 25),
  'relu squared': (power(), {'scale': 1}, 5),
  'swiglu': (gated(jax.nn.silu), {'scale': 1, 'sign': 1}, 5),
  'reglu': (gated(jax.nn.relu), {'scale': 2, 'sign': 1}, 10),
  'bilinear': (gated(lambda x: x), {'scale': 2, 'sign': 2}, 10),
  'rms stream': (stream(rms), {'rotation': 1}, 15),
  'rms stream with gains': (
    stream(rms, gains=True), {'scale': 2, 'sign': 3}, 12,
  ),
  'layer norm stream': (stream(layer_norm), {'rotation': 1}, 10),
  'layer norm stream with gains': (
    stream(layer_norm, gains=True), {'scale': 2, 'sign': 2}, 12,
  ),
  'stream without norm': (stream(lambda x: x), {'linear': 1}, 36),
  'attention': (attention(), {'linear': 2}, 36),
  'attention with biases': (attention(bias=True), {'linear': 2}, 36),
  'convolutions': (conv_net(jax.nn.relu), {'scale': 2}, 9),
  'odd convolutions': (conv_net(jnp.tanh), {'sign': 1}, 0),
  # In inference: a, m and g; g, b and c; the sign of v, of which abs is taken.
  'batch norm': (batch_norm(), {'scale': 2, 'sign': 2}, 10),
  'scan': (scanned(jnp.tanh), {'rotation': 1, 'sign': 1}, 6),
  'embedding': (embedded(), {'linear': 1, 'scale': 1}, 21),
  'low rank': (low_rank(), {'linear': 1, 'sign': 1}, 4),
  'fused': (fused(), {'linear': 1}, 16),
  'cosine': (cosine(), {'rotation': 1}, 10),
}  # fmt: skip


def llama(layers=2, width=12, heads=2, queries=2, units=4, hidden=10):
  """Grouped queries, rotary positions, a gated layer, norms without gains."""
  angles = np.arange(3)[:, None] * 10.0 ** -np.arange(units // 2)
  cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

  def rotary(x):
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

  def apply(p, tokens):
    x = p['e'][tokens]
    for i in range(layers):
      h = rms(x)
      q = rotary((h @ p[f'q{i}']).reshape(3, heads * queries, units))
      k = rotary((h @ p[f'k{i}']).reshape(3, heads, units))
      v = (h @ p[f'v{i}']).reshape(3, heads, units)
      q = q.reshape(3, heads, queries, units)
      a = jax.nn.softmax(jnp.einsum('thqd,shd->hqts', q, k), -1)
      o = jnp.einsum('hqts,shd->thqd', a, v).reshape(3, -1)
      x = x + o @ p[f'o{i}']
      h = rms(x)
      x = x + (jax.nn.silu(h @ p[f'w{i}']) * (h @ p[f'u{i}'])) @ p[f'd{i}']
    return rms(x) @ p['head']

  sizes = {'e': (7, width), 'head': (width, 2)}
  for i in range(layers):
    inner = heads * units
    sizes |= {f'q{i}': (width, queries * inner), f'k{i}': (width, inner)}
    sizes |= {f'v{i}': (width, inner), f'o{i}': (queries * inner, width)}
    sizes |= {f'w{i}': (width, hidden), f'u{i}': (width, hidden)}
    sizes |= {f'd{i}': (hidden, width)}
  return apply, shapes(**sizes), jnp.asarray([3, 1, 6])


def values(params, seed=0):
  draw = np.random.default_rng(seed)
  return {n: jnp.asarray(draw.normal(size=x.shape)) for n, x in params.items()}
