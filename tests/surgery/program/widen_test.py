"""Units are copied without a change of the function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, stats, surgery

WIDTH, HEADS, UNITS, HIDDEN, OUT = 4, 2, 3, 5, 2
DRAW = np.random.default_rng(0).normal
X = DRAW(size=(2, 3, 6))


def normalise(h, scale, xp):
  moment = xp.mean(h**2, -1, keepdims=True)
  return h * scale[None, None] / xp.sqrt(moment + 1e-3)


def forward(p, x, xp=np):
  """A residual stream, attention of several heads, a gated perceptron."""
  h = x @ p['in']
  n = normalise(h, p['norm'], xp)
  q, k, v = (xp.einsum('bsd,dhk->bshk', n, p[name]) for name in 'qkv')
  scores = xp.exp(xp.einsum('bshk,bthk->bhst', q, k) / 10)
  scores = scores / xp.sum(scores, -1, keepdims=True)
  mixed = xp.einsum('bhst,bthk->bshk', scores, v)
  h = h + xp.einsum('bshk,hkd->bsd', mixed, p['o'])
  inner = xp.tanh(h @ p['gate'] + p['bias'][None, None]) * (h @ p['up'])
  return normalise(h + inner @ p['down'], p['last'], xp) @ p['out']


def traced(p, x):
  return forward(p, x, jnp)


SHAPES = {
  'in': (6, WIDTH),
  'norm': (WIDTH,),
  **dict.fromkeys('qkv', (WIDTH, HEADS, UNITS)),
  'o': (HEADS, UNITS, WIDTH),
  **dict.fromkeys(('gate', 'up'), (WIDTH, HIDDEN)),
  'bias': (HIDDEN,),
  'down': (HIDDEN, WIDTH),
  'last': (WIDTH,),
  'out': (WIDTH, OUT),
}
PARAMS = {name: DRAW(size=shape) for name, shape in SHAPES.items()}


@pytest.fixture(scope='module')
def found():
  return {
    'symmetry': align.find_symmetry(traced, PARAMS, X),
    'views': stats.matrix_views(traced, PARAMS, X),
  }


def group(found, leaf, axis, factor=0):
  return found['symmetry'].leaf[leaf][axis][0][factor]


@pytest.mark.parametrize(
  ('leaf', 'axis', 'size', 'random'),
  [
    ('gate', 1, HIDDEN + 2, False),
    ('gate', 1, 3 * HIDDEN, True),
    ('q', 1, HEADS + 1, False),
    ('in', 1, 2 * WIDTH, False),
  ],
)
def test_copies_preserve_the_function(found, leaf, axis, size, random):
  name = group(found, leaf, axis)
  key = jax.random.key(1) if random else None
  new = surgery.widen(PARAMS, {name: size}, key=key, **found)
  assert new[leaf].shape[axis] == size
  np.testing.assert_allclose(
    forward(new, X), forward(PARAMS, X), rtol=1e-11, atol=1e-12
  )


def test_several_groups_grow_together(found):
  sizes = {
    group(found, 'gate', 1): 2 * HIDDEN + 1,
    group(found, 'in', 1): 2 * WIDTH,
    group(found, 'q', 1): 2 * HEADS,
  }
  new = surgery.widen(PARAMS, sizes, **found)
  np.testing.assert_allclose(
    forward(new, X), forward(PARAMS, X), rtol=1e-11, atol=1e-12
  )


def test_a_normalised_group_needs_equally_many_copies(found):
  name = group(found, 'in', 1)
  new = surgery.widen(PARAMS, {name: WIDTH + 1}, **found)
  assert np.max(np.abs(forward(new, X) - forward(PARAMS, X))) > 1e-3


def test_a_vector_that_a_product_contracts_is_divided():
  def fn(p, x):
    h = jnp.tanh(x @ p['a'] + p['b'][None])
    return h @ p['v'] + jnp.sum(h @ p['c'], -1)

  shapes = {'a': (6, 4), 'b': (4,), 'c': (4, 2), 'v': (4,)}
  params = {name: DRAW(size=shape) for name, shape in shapes.items()}
  x = X[0]
  views = stats.matrix_views(fn, params, x)
  assert '^b$' not in views
  symmetry = align.find_symmetry(fn, params, x)
  name = symmetry.leaf['b'][0][0][0]
  new = surgery.widen(params, {name: 7}, symmetry=symmetry, views=views)
  np.testing.assert_allclose(fn(new, x), fn(params, x), rtol=1e-12)


def test_leaves_keep_their_dtype(found):
  params = jax.tree.map(lambda x: x.astype('float32'), PARAMS)
  name = group(found, 'gate', 1)
  new = surgery.widen(params, {name: 3 * HIDDEN}, **found)
  assert {x.dtype.name for x in jax.tree.leaves(new)} == {'float32'}
  assert new['norm'] is params['norm']


def test_units_of_queries_are_refused(found):
  units = found['symmetry'].leaf['q'][2][0][0]
  with pytest.raises(ValueError, match='no product of a leaf contracts group'):
    surgery.widen(PARAMS, {units: 2 * UNITS}, **found)


def test_mistakes_are_named(found):
  name = group(found, 'gate', 1)
  with pytest.raises(ValueError, match='has 5 units, 4 asked'):
    surgery.widen(PARAMS, {name: 4}, **found)
  with pytest.raises(ValueError, match="did you mean 'bias:0'"):
    surgery.widen(PARAMS, {'bias:1': 6}, **found)
  views = {k: v for k, v in found['views'].items() if 'down' not in k}
  with pytest.raises(ValueError, match="leaf 'down' has no rule in views="):
    surgery.widen(PARAMS, {name: 6}, symmetry=found['symmetry'], views=views)
