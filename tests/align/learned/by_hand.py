"""A network of every gauge, moved by hand, and a multilayer perceptron."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg

from tests.align.gauged import draw, net, SYMMETRY, X
from wsl import align

F_ = align.Factor
F, M = draw(1), draw(2)
TARGET = net(F, X, np)
(SCALE,), (SIGN,), (ROTATION,), (QK, VO) = (
  [a.name for a in SYMMETRY.actions if a.kind == kind]
  for kind in ('scale', 'sign', 'rotation', 'linear')
)
UNITS, HEADS, INNER = 'a:1', 'k:1', 'd:0'


TRACES = []


def loss_fn(p, x):
  TRACES.append(x)
  return jnp.mean(jnp.square(net(p, x) - TARGET))


def by_hand(p, e):
  """Moves a model by matrices: permutations, then actions."""
  one = lambda n, size: e.get(n, np.eye(size))
  scale, sign = e.get(SCALE, np.ones(5)), e.get(SIGN, np.ones(5))
  into, out = one(UNITS, 5) * scale[:, None], one(UNITS, 5) / scale[:, None]
  inner, heads = one(INNER, 5) * sign[:, None], one(HEADS, 2)
  r, a, c = one(ROTATION, 4), one(QK, 3), one(VO, 3)
  a, c = (np.broadcast_to(x, (2, 3, 3)) for x in (a, c))
  dual = lambda x: np.linalg.inv(x).transpose(0, 2, 1)
  qkv = lambda w, g: np.einsum('ij,jhu,gh,gvu->igv', out, w, heads, g)
  moved = {'a': p['a'] @ into.T, 'b': into @ p['b'], 'e': out @ p['e'] @ r.T}
  moved |= {'q': qkv(p['q'], dual(a)), 'k': qkv(p['k'], a)}
  moved |= {'v': qkv(p['v'], dual(c))}
  moved['o'] = np.einsum('gvu,gh,hud,ed->gve', c, heads, p['o'], r)
  moved |= {'u': r @ p['u'] @ inner.T, 'd': inner @ p['d'] @ r.T}
  return moved | {'w': r @ p['w']}


def loss_by_hand(fixed, moving, weight):
  ends = by_hand(F, fixed), by_hand(M, moving)
  between = {n: (1 - weight) * ends[0][n] + weight * ends[1][n] for n in F}
  return np.mean(np.square(net(between, X, np) - TARGET))


def record():
  """A transformation whose state is the last gradient, and a loss near it."""
  zeros = lambda params: jax.tree.map(jnp.zeros_like, params)
  init = lambda params: (zeros(params), jnp.zeros(()))

  def update(gradient, state, params, *, value_fn, **extra):
    del state, extra
    after = jax.tree.map(lambda x, g: x - 0.2 * g, params, gradient)
    return gradient, (gradient, value_fn(after))

  return optax.GradientTransformationExtraArgs(init, update)


ADAM = optax.chain(record(), optax.adam(0.03))
GIVEN = {
  'symmetry': SYMMETRY,
  'key': jax.random.key(0),
  'loss_fn': loss_fn,
  'optimizer': ADAM,
}


def stepped(name, table, x):
  """Returns a table, or the matrix of a latent, after a step of any size."""
  if name in (UNITS, HEADS, INNER, SIGN):
    return table + x
  if name == SCALE:
    return np.exp(x) * table
  x = (x - np.swapaxes(x, -1, -2)) / 2 if name == ROTATION else x
  return scipy.linalg.expm(x) @ table


def slope(ends, end, name, tangent, weight):
  """Returns the derivative of the loss along a tangent, by differences."""

  def loss(t):
    moved = {name: stepped(name, ends[end][name], t * tangent)}
    both = ends | {end: ends[end] | moved}
    return loss_by_hand(both['fixed'], both['moving'], weight)

  return (loss(1e-5) - loss(-1e-5)) / 2e-5


MLP = align.Symmetry(
  factors=(F_('a:0', 3, 'an input'), F_('a:1', 6), F_('b:1', 2, 'an output')),
  axes=(
    ('a', ((('a:0',),), (('a:1',),))),
    ('b', ((('a:1',),), (('b:1',),))),
    ('n', ()),
  ),
)


def mlp_loss(p, x):
  return jnp.mean(jnp.square(jax.nn.relu(x @ p['a']) @ p['b'] - 1))


def mlp_params(seed, dtype=jnp.float64):
  draw = np.random.default_rng(seed)
  one = lambda *shape: jnp.asarray(draw.normal(size=shape), dtype)
  return {'a': one(3, 6), 'b': one(6, 2), 'n': jnp.asarray(seed)}
