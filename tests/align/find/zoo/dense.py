"""Perceptrons, experts and control flow: models without convolutions."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from tests.align.find.zoo import base

f = base.factorial


class MLP(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(7)(x))
    x = nn.gelu(nn.Dense(6)(x))
    return nn.Dense(4)(x)


def mlp():
  x = base.normal(3, 5)
  # Two hidden layers; input and output are pinned.
  return base.Model(*base.linen(MLP(), x), (x,), f(7) * f(6))


def layer_norm():
  def apply(p, x):
    h = base.affine(x, p['in'], p['in_bias'])
    for block in p['blocks']:
      y = base.layer_norm(h, block['scale'], block['bias'])
      y = jnp.tanh(base.affine(y, block['up'], block['up_bias']))
      h = h + base.affine(y, block['down'], block['down_bias'])
    h = base.layer_norm(h, p['scale'], p['bias'])
    return base.affine(h, p['out'], p['out_bias'])

  block = lambda n: {
    'scale': (6,), 'bias': (6,), 'up': (6, n), 'up_bias': (n,),
    'down': (n, 6), 'down_bias': (6,),
  }  # fmt: skip
  shapes = {
    'in': (3, 6), 'in_bias': (6,), 'blocks': [block(7), block(5)],
    'scale': (6,), 'bias': (6,), 'out': (6, 4), 'out_bias': (4,),
  }  # fmt: skip
  # The residual stream once, and the hidden units of each block.
  order = f(6) * f(7) * f(5)
  return base.Model(apply, base.draw(shapes), (base.normal(2, 3),), order)


class SharedTwice(nn.Module):
  @nn.compact
  def __call__(self, x):
    square = nn.Dense(6)
    x = nn.tanh(nn.Dense(6, use_bias=False)(x))
    x = nn.tanh(square(nn.tanh(square(x))))
    return nn.Dense(3)(x)


def shared_twice():
  x = base.normal(2, 5)
  # The output of the shared map is its input: one label, twice in one kernel.
  return base.Model(*base.linen(SharedTwice(), x), (x,), f(6))


def tied_autoencoder():
  def apply(p, x):
    h = jnp.tanh(base.affine(x, p['w1'], p['b1']))
    z = jnp.tanh(base.affine(h, p['w2'], p['b2']))
    h = jnp.tanh(base.affine(z, p['w2'].T, p['c2']))
    return base.affine(h, p['w1'].T, p['c1'])

  shapes = {
    'w1': (4, 6), 'b1': (6,), 'w2': (6, 5), 'b2': (5,), 'c2': (6,), 'c1': (4,),
  }  # fmt: skip
  # W and its transpose: the decoder's hidden units are the encoder's.
  order = f(6) * f(5)
  return base.Model(apply, base.draw(shapes), (base.normal(2, 4),), order)


def mixer():
  def apply(p, x):
    h = base.affine(x, p['in'], p['in_bias'])
    for block in p['blocks']:
      y = base.layer_norm(h, block['norm1_scale'], block['norm1_bias'])
      y = jax.nn.gelu(base.affine(y.mT, block['t1'], block['t1_bias']))
      h = h + base.affine(y, block['t2'], block['t2_bias']).mT
      y = base.layer_norm(h, block['norm2_scale'], block['norm2_bias'])
      y = jax.nn.gelu(base.affine(y, block['c1'], block['c1_bias']))
      h = h + base.affine(y, block['c2'], block['c2_bias'])
    return base.affine(h.mean(1), p['out'], p['out_bias'])

  block = {
    'norm1_scale': (6,), 'norm1_bias': (6,), 'norm2_scale': (6,),
    'norm2_bias': (6,), 't1': (4, 5), 't1_bias': (5,), 't2': (5, 4),
    't2_bias': (4,), 'c1': (6, 7), 'c1_bias': (7,), 'c2': (7, 6),
    'c2_bias': (6,),
  }  # fmt: skip
  shapes = {
    'in': (3, 6), 'in_bias': (6,), 'blocks': [block, block], 'out': (6, 2),
    'out_bias': (2,),
  }  # fmt: skip
  # The four patches are inputs; the stream, then both mixers of each block.
  order = f(6) * (f(5) * f(7)) ** 2
  return base.Model(apply, base.draw(shapes), (base.normal(2, 4, 3),), order)


_MOE = {
  'in': (3, 5), 'in_bias': (5,), 'router': (5, 4), 'router_bias': (4,),
  'up': (4, 5, 6), 'up_bias': (4, 6), 'down': (4, 6, 5), 'out': (5, 2),
}  # fmt: skip


def _experts(p, h, gates):
  up = jnp.einsum('bd,edf->bef', h, p['up']) + p['up_bias'][None]
  return jnp.einsum('be,bef,efd->bd', gates, jax.nn.silu(up), p['down'])


def soft_moe():
  def apply(p, x):
    h = jnp.tanh(base.affine(x, p['in'], p['in_bias']))
    gates = jax.nn.softmax(base.affine(h, p['router'], p['router_bias']))
    return (h + _experts(p, h, gates)) @ p['out']

  # Stream; the experts; the hidden units within each expert.
  order = f(5) * f(4) * f(6) ** 4
  return base.Model(apply, base.draw(_MOE), (base.normal(3, 3),), order)


def top_k_moe():
  def apply(p, x):
    h = jnp.tanh(base.affine(x, p['in'], p['in_bias']))
    scores = base.affine(h, p['router'], p['router_bias'])
    best, which = jax.lax.top_k(scores, 2)
    chosen = jax.nn.one_hot(which, 4, dtype=h.dtype)
    gates = jnp.einsum('bk,bke->be', jax.nn.softmax(best), chosen)
    return (h + _experts(p, h, gates)) @ p['out']

  # Like the soft mixture: the best scores do not depend on the order.
  order = f(5) * f(4) * f(6) ** 4
  inputs = (base.normal(3, 3),)
  return base.Model(apply, base.draw(_MOE), inputs, order, certified=True)


@jax.custom_vjp
def _square(x):
  return jnp.square(x)


_square.defvjp(
  lambda x: (jnp.square(x), x), lambda x, slope: (2.0 * x * slope,)
)


@jax.custom_jvp
def _soft(x):
  return jnp.log1p(jnp.exp(x))


@_soft.defjvp
def _soft_slope(point, tangent):
  return _soft(*point), jax.nn.sigmoid(point[0]) * tangent[0]


def remat():
  @jax.checkpoint
  def block(p, h):
    hidden = _square(base.affine(h, p['up'], p['up_bias']))
    return h + _soft(hidden) @ p['down']

  def apply(p, x):
    h = jax.jit(base.affine)(x, p['in'], p['in_bias'])
    return block(p['b'], block(p['a'], h)) @ p['out']

  shapes = {
    'in': (3, 6), 'in_bias': (6,), 'out': (6, 2),
    'a': {'up': (6, 7), 'up_bias': (7,), 'down': (7, 6)},
    'b': {'up': (6, 5), 'up_bias': (5,), 'down': (5, 6)},
  }  # fmt: skip
  # Recomputation and custom derivatives do not change the function.
  order = f(6) * f(7) * f(5)
  return base.Model(apply, base.draw(shapes), (base.normal(2, 3),), order)


def while_cond():
  def settle(p, drive):
    def step(state):
      count, h = state
      return count + 1, jnp.tanh(h @ p['w'] + drive)

    moving = lambda state: (state[0] < 6) & (jnp.max(state[1]) < 0.99)
    return jax.lax.while_loop(moving, step, (0, jnp.zeros_like(drive)))[1]

  def wide(p, h):
    return jax.nn.relu(base.affine(h, p['wide'], p['wide_bias'])) @ p['wide2']

  def narrow(p, h):
    return jnp.tanh(base.affine(h, p['thin'], p['thin_bias'])) @ p['thin2']

  def apply(p, x):
    h = settle(p, base.affine(x, p['in'], p['in_bias']))
    rest = jax.lax.cond(x.sum() > 0, wide, narrow, p, h)
    other = jax.lax.cond(x.sum() > 0, narrow, wide, p, h)
    return base.affine(h + rest - 2.0 * other, p['out'], p['out_bias'])

  shapes = {
    'in': (3, 6), 'in_bias': (6,), 'w': (6, 6), 'out': (6, 2),
    'out_bias': (2,), 'wide': (6, 5), 'wide_bias': (5,), 'wide2': (5, 6),
    'thin': (6, 4), 'thin_bias': (4,), 'thin2': (4, 6),
  }  # fmt: skip
  # The state of the loop, and the hidden units of both branches.
  order = f(6) * f(5) * f(4)
  return base.Model(apply, base.draw(shapes), (base.normal(2, 3),), order)
