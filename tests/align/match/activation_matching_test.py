"""Activation matching: planted permutations, sites, arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align import planted
from tests.align.find import zoo
from tests.align.match.dependent_units import (
  INNER,
  SYMMETRY,
  UNITS,
)
from wsl import align
from wsl.align._activations import activation_sites


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


def test_the_distance_tells_units_of_different_scale():
  """Units that are proportional correlate, but are far from each other."""
  params = _params()
  fixed = params | {'a': params['a'].at[:, 2].set(3 * params['a'][:, 1])}
  order = jnp.asarray([0, 2, 1, 3, 4])
  capture = lambda p, x: {UNITS: x @ p['a']}
  moving = fixed | {'a': fixed['a'][:, order]}
  found = _find(fixed, moving, _batches(2), gain='distance', capture=capture)
  np.testing.assert_array_equal(found[UNITS], order)


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
