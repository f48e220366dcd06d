"""Gauge groups have the dimensions derived by hand.

The models are those of the zoo, so the search is shared with its tests, and six
more.
"""

import math

import jax
import jax.numpy as jnp
import pytest

from tests.align.find import harness
from tests.align.find.gauge_dimensions import BY_HAND, FOUND, gl
from wsl import align


def shapes(**sizes):
  return {n: jax.ShapeDtypeStruct(s, jnp.float64) for n, s in sizes.items()}


def norm(x, gain, shift):
  x = x - x.mean(-1, keepdims=True)
  x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
  return x * gain[None, None] + shift[None, None]


def attend(p, h):
  q, k, v = (jnp.einsum('bsd,dhe->bshe', h, p[n]) for n in 'qkv')
  weights = jax.nn.softmax(jnp.einsum('bqhd,bkhd->bhqk', q, k))
  return jnp.einsum('bhqk,bkhe,hed->bqd', weights, v, p['o'])


ATTENTION = {n: (8, 2, 3) for n in 'qkv'} | {'o': (2, 3, 8)}
TOKENS = jax.ShapeDtypeStruct((2, 5, 4), jnp.float64)
IMAGE = jax.ShapeDtypeStruct((2, 6, 6, 3), jnp.float64)


def bert(p, x):
  """Normalises after each sum."""
  h = x @ p['in']
  h = norm(h + attend(p, h), p['g'], p['s'])
  h = norm(h + jax.nn.gelu(h @ p['up']) @ p['down'], p['g2'], p['s2'])
  return h @ p['out']


def conv(x, kernel, groups=1):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )  # fmt: skip


def convnext(p, x):
  """A depthwise convolution, a norm, a mixer and a gain of the branch."""
  h = conv(x, p['stem'])
  y = conv(h, p['deep'], 6)
  y = norm(y.reshape(2, 36, 6), p['g'], p['s'])
  y = (jax.nn.gelu(y @ p['up']) @ p['down']) * p['gamma'][None, None]
  h = h.reshape(2, 36, 6) + y
  return norm(h, p['g2'], p['s2']).mean(1) @ p['out']


def squeeze_excite(p, x):
  """A residual block whose channels are gated by their means."""
  h = jax.nn.relu(conv(x, p['stem']))
  y = conv(jax.nn.relu(conv(h, p['one'])), p['two'])
  gate = jax.nn.sigmoid(jax.nn.relu(y.mean((1, 2)) @ p['s']) @ p['e'])
  h = jax.nn.relu(h + y * gate[:, None, None])
  return h.mean((1, 2)) @ p['out']


def two_towers(p, x):
  """The cosine of two maps, as in CLIP."""
  one = lambda n: jax.nn.relu(x @ p[n]) @ p[n + '2']
  unit = lambda y: y / jnp.linalg.norm(y, axis=-1, keepdims=True)
  return jnp.einsum('bsd,btd->bst', unit(one('a')), unit(one('b')))


NORMS = {n: (8,) for n in ('g', 's', 'g2', 's2')}
# Function, sizes, input, dimension and signs.
MORE = {
  # Only the last norm is followed by a map alone.
  'bert': (
    bert,
    ATTENTION | NORMS
    | {'in': (4, 8), 'up': (8, 5), 'down': (5, 8), 'out': (8, 2)},
    TOKENS, 8 + 2 * gl(2, 3), 8,
  ),
  # The norm into the mixer, the mixer against gamma, the last norm.
  'convnext': (
    convnext,
    {n: (6,) for n in ('g', 's', 'g2', 's2', 'gamma')}
    | {'stem': (1, 1, 3, 6), 'deep': (3, 3, 1, 6), 'up': (6, 7), 'down': (7, 6),
       'out': (6, 2)},
    IMAGE, 3 * 6, 3 * 6,
  ),
  # ReLU: the stream, the inner channels, the squeezed ones.
  'squeeze and excite': (
    squeeze_excite,
    {'stem': (3, 3, 3, 6), 'one': (3, 3, 6, 5), 'two': (3, 3, 5, 6),
     's': (6, 4), 'e': (4, 6), 'out': (6, 2)},
    IMAGE, 6 + 5 + 4, 0,
  ),
  # O of the common space; ReLU units of both; a factor of each tower.
  'two towers': (
    two_towers, {'a': (4, 5), 'a2': (5, 7), 'b': (4, 6), 'b2': (6, 7)},
    TOKENS, 7 * 6 // 2 + 5 + 6 + 2, 0,
  ),
}  # fmt: skip


def dimension(symmetry):
  """Returns the dimension of the continuous group, and the number of signs."""
  total = signs = 0
  for action in symmetry.actions:
    *outer, n = symmetry.action_shape(action.name)
    count = math.prod(outer)
    if action.kind == 'sign':
      signs += count * n
    elif action.kind == 'rotation':
      n -= action.ones
      total += math.prod(outer[:-1]) * n * (n - 1) // 2
    elif action.kind == 'phase':
      total += count * (1 if action.unit else 2)
    else:
      total += count * n
  return total, signs


@pytest.mark.parametrize('name', BY_HAND)
def test_architectures_by_hand(name):
  found = dimension(harness.symmetry_of(name))
  assert found == FOUND.get(name, BY_HAND[name])


@pytest.mark.parametrize('name', MORE)
def test_more_architectures_by_hand(name):
  apply, sizes, x, *wanted = MORE[name]
  symmetry = align.find_symmetry(apply, shapes(**sizes), x)
  assert dimension(symmetry) == FOUND.get(name, tuple(wanted))


@pytest.mark.parametrize(
  ('name', 'wanted'),
  [
    # Rotations of the stream in place of the gains, and no sign of it.
    ('llama', (10 * 9 // 2 + 2 * 7 + 2 * gl(2, 4) + 2 * 2 * 2 * 2, 2 * 7)),
    # Those that fix the mean.
    ('wsl_vit', (11 * 10 // 2 + 4 * gl(3, 4), 0)),
  ],
)
def test_absorbed_gains_by_hand(name, wanted):
  model = harness.build(name)
  symmetry = align.find_symmetry(
    model.apply, model.params, *model.inputs, ones='scale$'
  )
  assert dimension(symmetry) == wanted
