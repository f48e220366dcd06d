"""Activation matching: moments over batches, gains, nested assignments."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align import planted
from tests.align.find import zoo
from wsl import align
from wsl.align import _nested_assignment
from wsl.align._activations import activation_moments, activation_sites
from wsl.align._gauges import views

F = align.Factor

# Hidden units; heads and the units inside them, in each of two pinned layers.
SYMMETRY = align.Symmetry(
  factors=(
    F('a:0', 3, 'an input'),
    F('a:1', 5),
    F('b:0', 2, 'layers'),
    F('b:1.0', 3, outer=('b:0',)),
    F('b:1.1', 4, outer=('b:0', 'b:1.0')),
  ),
  axes=(
    ('a', ((('a:0',),), (('a:1',),))),
    ('b', ((('b:0',),), (('b:1.0', 'b:1.1'),))),
  ),
)
UNITS, HEADS, INNER = 'a:1', 'b:1.0', 'b:1.1'
OUTER_OF = views.of(SYMMETRY, ('permutation',)).outer_of


def _params(seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), np.float32)
  return {'a': draw(3, 5), 'b': draw(2, 12)}


def _capture(params, x):
  """Returns activations that are permuted with both groups."""
  inner = jnp.sin(x[:, :1, None, None] * 3 * params['b'].reshape(1, 2, 3, 4))
  return {UNITS: jnp.tanh(x @ params['a']), INNER: inner}


def _batches(count, size=40, seed=0):
  rng = np.random.default_rng(seed)
  xs = rng.normal(size=(count, size, 3))
  return [jnp.asarray(x, np.float32) for x in xs]


def _find(fixed, moving, batches, **change):
  arguments = {
    'symmetry': SYMMETRY,
    'apply_fn': None,
    'batches': batches,
    'capture': _capture,
  }
  return align.activation_matching(fixed, moving, **arguments | change)


def _assign(gains, symmetry):
  view = views.of(symmetry, ('permutation',))
  return _nested_assignment.assign(
    gains,
    start=view.identity(),
    outer_of=view.outer_of,
    solvers=view.solvers(align.assign_scipy),
  )


def _moments(x, y, sizes, name=UNITS):
  labels = activation_moments.einsum_labels(name, OUTER_OF)
  found, start = None, 0
  for size in sizes:
    rows = slice(start, start + size)
    found = activation_moments.accumulate(found, x[rows], y[rows], labels)
    start += size
  return found


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_streamed_gains_equal_those_of_all_rows(dtype):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 100, 5))
  x[:, 1] += 1000  # a large mean must not cost precision
  y[:, 2] = 7.5  # a constant
  y[:, 3] = 0
  x, y = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
  found = _moments(x, y, [30, 50, 20])
  assert found.rows == 100
  a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
  rtol = 1e-12 if dtype == np.float64 else 1e-4
  np.testing.assert_allclose(
    activation_moments.gains(found, 'inner'),
    a.T @ b / 100,
    rtol=rtol,
    atol=rtol,
  )
  varying = [0, 1, 4]
  wanted = np.zeros((5, 5))
  corner = np.corrcoef(a.T, b[:, varying].T)[:5, 5:]
  wanted[:, varying] = corner
  np.testing.assert_allclose(
    activation_moments.gains(found, 'correlation'), wanted, atol=10 * rtol
  )
  distances = np.sqrt(((a.T[:, None] - b.T[None]) ** 2).sum(-1))
  np.testing.assert_allclose(
    activation_moments.gains(found, 'distance'), -distances, rtol=rtol
  )
  same = _moments(x, x, [30, 50, 20])
  diagonal = np.diag(activation_moments.gains(same, 'distance'))
  scale = np.linalg.norm(a - a.mean(0), axis=0)
  np.testing.assert_allclose(diagonal / scale, 0, atol=np.sqrt(rtol))


def test_distances_of_dependent_groups():
  rng = np.random.default_rng(1)
  x, y = rng.normal(size=(2, 20, 2, 3, 4))
  found = _moments(jnp.asarray(x), jnp.asarray(y), [15, 5], INNER)
  x, y = x[:, :, :, None, :, None], y[:, :, None, :, None]
  np.testing.assert_allclose(
    activation_moments.gains(found, 'distance'),
    -np.sqrt(((x - y) ** 2).sum(0)),
    rtol=1e-10,
  )


def test_the_distance_tells_units_of_different_scale():
  """Units that are proportional correlate, but are far from each other."""
  params = _params()
  fixed = params | {'a': params['a'].at[:, 2].set(3 * params['a'][:, 1])}
  order = jnp.asarray([0, 2, 1, 3, 4])
  capture = lambda p, x: {UNITS: x @ p['a']}
  moving = fixed | {'a': fixed['a'][:, order]}
  found = _find(fixed, moving, _batches(2), gain='distance', capture=capture)
  np.testing.assert_array_equal(found[UNITS], order)


def test_dependent_groups_have_gains_for_every_pair_of_outer_indices():
  rng = np.random.default_rng(1)
  x, y = rng.normal(size=(2, 20, 2, 3, 4))
  found = _moments(jnp.asarray(x), jnp.asarray(y), [15, 5], INNER)
  wanted = np.einsum('rluj,rlok->luojk', x, y) / 20
  np.testing.assert_allclose(
    activation_moments.gains(found, 'inner'), wanted, atol=1e-12
  )


def test_nested_assignment_against_brute_force():
  rng = np.random.default_rng(2)
  outer = rng.normal(size=(2, 3, 3))
  inner = rng.normal(size=(2, 3, 3, 4, 4))
  found = _assign({HEADS: outer, INNER: inner}, SYMMETRY)
  np.testing.assert_array_equal(found[UNITS], np.arange(5))
  for layer in range(2):
    best = -np.inf
    for heads in itertools.permutations(range(3)):
      value = sum(outer[layer, u, o] for u, o in enumerate(heads))
      for u, o in enumerate(heads):
        gain = inner[layer, u, o]
        value += max(
          sum(gain[i, j] for i, j in enumerate(units))
          for units in itertools.permutations(range(4))
        )
      best = max(best, value)
    heads, units = found[HEADS][layer], found[INNER][layer]
    value = sum(outer[layer, u, heads[u]] for u in range(3)) + sum(
      inner[layer, u, heads[u], i, units[u, i]]
      for u in range(3)
      for i in range(4)
    )
    np.testing.assert_allclose(value, best, rtol=1e-12)


def test_gains_of_independent_outer_groups_are_averaged():
  symmetry = align.Symmetry(
    (F('w:0', 2), F('w:1', 3), F('w:2', 2, outer=('w:0', 'w:1'))),
    (('w', ((('w:0',),), (('w:1',),), (('w:2',),))),),
  )
  truth = align.random(symmetry, jax.random.key(1), gauges=('permutation',))
  rng = np.random.default_rng(3)
  x = rng.normal(size=(50, 2, 3, 2))
  back = align.invert(truth, symmetry=symmetry)
  y = np.stack(
    [
      align.permute({'w': jnp.asarray(r)}, truth, symmetry=symmetry)['w']
      for r in x
    ]
  )
  outer_of = views.of(symmetry, ('permutation',)).outer_of
  labels = activation_moments.einsum_labels('w:2', outer_of)
  moments = activation_moments.accumulate(
    None, jnp.asarray(x), jnp.asarray(y), labels
  )
  gains = activation_moments.gains(moments, 'inner')
  found = _assign({'w:2': gains}, symmetry)
  jax.tree.map(np.testing.assert_array_equal, found, back)


@pytest.mark.parametrize('gain', ['correlation', 'inner', 'distance'])
@pytest.mark.parametrize('seed', [0, 1])
def test_planted_recovery(gain, seed):
  params = _params(seed)
  moving, wanted = planted.permuted(params, SYMMETRY, seed=seed)
  found = _find(params, moving, _batches(3), gain=gain)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_all_batches_contribute():
  # The small batch alone yields a wrong matching; the large one corrects it.
  params = _params()
  weak, strong = _batches(1, size=4)[0], _batches(1, size=400, seed=1)[0]
  swapped = jnp.asarray([1, 0, 2, 3, 4])

  def capture(model, x):
    y = _capture(params, x)[UNITS]
    misleading = model['b'][0, 0] == 0 and len(x) == 4
    return {UNITS: y[:, swapped] if misleading else y}

  moving = params | {'b': 0 * params['b']}
  match = lambda batches: _find(params, moving, batches, capture=capture)[UNITS]
  np.testing.assert_array_equal(match([weak]), swapped)
  np.testing.assert_array_equal(match([weak, strong]), np.arange(5))
  np.testing.assert_array_equal(match([strong, weak]), np.arange(5))


def test_gains_of_several_sites_are_summed():
  params = _params(3)
  moving, wanted = planted.permuted(params, SYMMETRY, seed=4)

  def capture(model, x):
    y = _capture(model, x)[UNITS]
    return {UNITS: [jnp.zeros_like(y), y[:1] * 0, y]}

  found = _find(params, moving, _batches(2), capture=capture)
  np.testing.assert_array_equal(found[UNITS], wanted[UNITS])


# Every group of these models enters a product.
@pytest.mark.parametrize(
  'name', ['mlp', 'group_norm', 'transformer', 'scan_transformer', 'llama']
)
def test_planted_recovery_at_the_sites_of_a_function(name):
  model = zoo.build(name)
  run = lambda params, inputs: model.apply(params, *inputs['x'])
  inputs = {'x': model.inputs}
  symmetry = align.find_symmetry(run, model.params, inputs)
  g = align.random(symmetry, jax.random.key(0), gauges=('permutation',))
  moving = align.permute(model.params, g, symmetry=symmetry)
  rng = np.random.default_rng(0)
  another = lambda x: (
    jnp.asarray(rng.normal(size=x.shape), x.dtype)
    if jnp.issubdtype(x.dtype, jnp.floating)
    else jnp.asarray(rng.permutation(np.asarray(x).ravel()).reshape(x.shape))
  )
  batches = [jax.tree.map(another, inputs) for _ in range(6)]
  found = align.activation_matching(
    model.params, moving, symmetry=symmetry, apply_fn=run, batches=batches
  )
  back = align.permute(moving, found, symmetry=symmetry)
  # Units that are zero on all inputs may be permuted among themselves.
  activations = lambda params: jax.tree.map(
    lambda *rows: np.concatenate(rows),
    *(activation_sites.activations(symmetry, run, params, x) for x in batches),
  )
  ours = activations(model.params)
  jax.tree.map(np.testing.assert_array_equal, activations(back), ours)
  alive = [group for group, x in ours.items() if np.ptp(x, axis=0).all()]
  wanted = align.invert(g, symmetry=symmetry)
  assert len(alive) >= len(symmetry.groups) - 1
  for group in alive:
    np.testing.assert_array_equal(found[group], wanted[group])


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'gain': 'x'}, "gain 'x' is unknown"),
    ({'batches': []}, 'activation_matching: no batches given'),
    (
      {'batches': jnp.ones((4, 3))},
      'activation_matching: batches is one array',
    ),
    ({'batches': [jnp.ones((0, 3))]}, 'batch 0 holds no examples'),
    ({'capture': lambda p, x: {}}, 'no activation was captured'),
    ({'capture': lambda p, x: {'zz': x}}, "'zz', which is no group"),
    ({'capture': lambda p, x: {UNITS: x}}, r'expected \[rows, \*\(5,\)\]'),
    (
      {'capture': lambda p, x: {UNITS: jnp.log(-jnp.ones((4, 5)))}},
      "an activation of 'a:1' is NaN or inf",
    ),
  ],
)
def test_arguments_are_checked(change, message):
  arguments = {'batches': _batches(1)} | change
  with pytest.raises(ValueError, match=message):
    _find(_params(), _params(), **arguments)


def test_models_are_checked():
  wide = _params() | {'a': jnp.ones((3, 6), np.float32)}
  with pytest.raises(ValueError, match="moving: leaf 'a' has shape"):
    _find(_params(), wide, _batches(1))
