"""Activation matching over signs, scales, rotations, phases, linear maps."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.gauges import moved
from tests.align.gauges import networks as models
from wsl import align

RNG = np.random.default_rng(0)


def batches_of(x, count=8):
  if x.dtype.kind == 'i':
    draw = lambda: RNG.integers(0, 7, x.shape)
  else:
    draw = lambda: RNG.normal(size=x.shape)
  return [jnp.asarray(draw(), x.dtype) for _ in range(count)]


def build(name):
  if name == 'llama':
    apply, params, x = models.llama(layers=1, width=6, units=2, hidden=3)
  else:
    (apply, params, x), *_ = models.BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, x)
  return apply, moved.host(params), symmetry, batches_of(x)


def matched(fixed, moving, apply, symmetry, batches, **kwargs):
  kwargs = {'gauges': align.GAUGES} | kwargs
  return align.activation_matching(
    fixed,
    moving,
    symmetry=symmetry,
    apply_fn=apply,
    batches=batches,
    **kwargs,
  )


@pytest.mark.parametrize(
  ('name', 'gain'),
  [
    ('relu', 'inner'),
    ('tanh', 'correlation'),
    ('swiglu', 'inner'),
    ('bilinear', 'correlation'),
    ('rms stream', 'inner'),
    ('layer norm stream', 'correlation'),
    ('attention', 'correlation'),
    ('scan', 'inner'),
    ('llama', 'inner'),
  ],
)
def test_a_planted_element_is_undone(name, gain):
  apply, fixed, symmetry, batches = build(name)
  moving = moved.move(fixed, moved.element(symmetry, 1), symmetry)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    found = matched(fixed, moving, apply, symmetry, batches, gain=gain)
  back = moved.move(moving, found, symmetry)
  assert moved.distance(fixed, moving) > 0.5
  assert moved.distance(fixed, back) < 1e-10
  # Permutations alone do not undo it.
  only = {n: found[n] for n in align.identity(symmetry)}
  assert moved.distance(fixed, moved.move(moving, only, symmetry)) > 0.1


def test_signs_of_recurrent_units():
  # The units occur twice in w: one table moves both of its axes.
  def apply(p, x):
    h = jnp.tanh(x @ p['a'])
    return jnp.tanh(x @ p['a'] + h @ p['w']) @ p['c']

  params = models.shapes(a=(3, 5), w=(5, 5), c=(5, 2))
  symmetry = align.find_symmetry(apply, params, models.X)
  fixed, batches = moved.host(params), batches_of(models.X)
  moving = moved.move(fixed, moved.element(symmetry, 3), symmetry)
  found = matched(fixed, moving, apply, symmetry, batches)
  assert moved.distance(fixed, moved.move(moving, found, symmetry)) < 1e-12


def two(name):
  """Returns two unrelated models of one function, and all inputs at once."""
  apply, fixed, symmetry, batches = build(name)
  moving = {n: RNG.normal(size=np.shape(x)) for n, x in sorted(fixed.items())}
  return apply, fixed, moving, symmetry, batches, np.concatenate(batches)


def test_scales_are_ratios_of_root_mean_squares():
  apply, fixed, moving, symmetry, batches, x = two('relu')
  fixed['b'], moving['b'] = np.abs(fixed['b']), np.abs(moving['b'])
  found = matched(fixed, moving, apply, symmetry, batches, gain='inner')
  a, b = (np.maximum(x @ p['a'] + p['b'], 0) for p in (fixed, moving))
  size = lambda h: np.sqrt(np.square(h).mean(0))
  (units,) = align.identity(symmetry)
  order = np.asarray(found[units])
  np.testing.assert_allclose(
    found[f'scale {units}'], size(a) / size(b)[order], 1e-12
  )
  cosines = (a / size(a)).T @ (b / size(b))
  np.testing.assert_array_equal(order, align.assign_scipy(cosines))


def last_stream(params, x):
  """Returns the last state of ``gauges_test.stream`` with RMSNorm, in numpy."""
  h = x @ params['e']
  for i in range(2):
    n = h / np.sqrt(np.square(h).mean(-1, keepdims=True) + 1e-6)
    u = n @ params[f'u{i}']
    h = h + (u / (1 + np.exp(-u))) @ params[f'd{i}']
  return h


@pytest.mark.parametrize('gain', ['inner', 'correlation'])
def test_a_rotation_is_the_polar_factor_of_the_cross_moment(gain):
  apply, fixed, moving, symmetry, batches, x = two('rms stream')
  found = matched(fixed, moving, apply, symmetry, batches, gain=gain)
  a, b = (last_stream(p, x) for p in (fixed, moving))
  if gain == 'correlation':
    a, b = a - a.mean(0), b - b.mean(0)
  u, _, vt = np.linalg.svd(a.T @ b)
  (name,) = symmetry.action
  order = np.asarray(found[symmetry.action[name].factor])
  np.testing.assert_array_equal(order, np.arange(6))
  np.testing.assert_allclose(found[name], u @ vt, atol=1e-10)


def test_a_linear_map_is_whitened_procrustes():
  apply, fixed, moving, symmetry, batches, x = two('low rank')
  found = matched(fixed, moving, apply, symmetry, batches, gain='inner')
  a, b = x @ fixed['a'], x @ moving['a']

  def root(gram, power):
    s, u = np.linalg.eigh(gram)
    return (u * s**power) @ u.T

  grams = [h.T @ h / len(x) for h in (a, b)]
  whitened = root(grams[0], -0.5) @ (a.T @ b) @ root(grams[1], -0.5)
  u, _, vt = np.linalg.svd(whitened)
  (name,) = (n for n in symmetry.action if n.startswith('linear'))
  wanted = root(grams[0], 0.5) @ u @ vt @ root(grams[1], -0.5)
  # The activations that ``a`` writes are the covectors of this action.
  assert [p.power for p in symmetry.action[name].powers] == [-1, 1]
  np.testing.assert_allclose(found[name], np.linalg.inv(wanted).T, atol=1e-10)


def test_dependent_units_are_matched_where_they_vary():
  apply, fixed, symmetry, batches = build('identity')
  moving = moved.move(fixed, moved.element(symmetry, 1), symmetry)
  with pytest.warns(UserWarning, match="'linear a:1' is matched where they"):
    found = matched(fixed, moving, apply, symmetry, batches, gain='inner')
  back = moved.move(moving, found, symmetry)
  # The planted map is not determined by three inputs to five units.
  assert moved.distance(fixed, back) > 0.1
  h = lambda p: np.concatenate(batches) @ p['a']
  assert np.abs(h(moving) - h(fixed)).max() > 1
  np.testing.assert_allclose(h(back), h(fixed), atol=1e-10)


def test_constant_units_are_named():
  apply, fixed, symmetry, batches = build('relu')
  fixed['b'] = np.abs(fixed['b'])
  scale = np.asarray([2.0, 1, 2, 2, 2])
  moving = {
    'a': fixed['a'] / scale,
    'b': (fixed['b'] - np.asarray([0, 1e3, 0, 0, 0])) / scale,
    'c': fixed['c'] * scale[:, None],
  }
  with pytest.warns(UserWarning, match='mean of other units at 1 units of mov'):
    found = matched(fixed, moving, apply, symmetry, batches)
  (units,) = align.identity(symmetry)
  np.testing.assert_array_equal(found[units], np.arange(5))
  alive = np.asarray([0, 2, 3, 4])
  table = np.asarray(found[f'scale {units}'])
  np.testing.assert_allclose(table[alive], 2, 1e-12)
  assert 0 < table[1] < np.inf


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'gauges': ('rotate',)}, "activation_matching: gauges has 'rotate'"),
    ({'gain': 'distance'}, "gain 'distance' is for permutations only"),
    ({'capture': lambda p, x: {}}, 'capture is for permutations only'),
  ],
)
def test_arguments_are_checked(change, message):
  apply, fixed, symmetry, batches = build('relu')
  with pytest.raises(ValueError, match=message):
    matched(fixed, fixed, apply, symmetry, batches, **change)


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_narrow_models(dtype):
  apply, fixed, symmetry, batches = build('attention')
  moving = moved.move(fixed, moved.element(symmetry, 1), symmetry)
  narrow = lambda tree: {n: jnp.asarray(x, dtype) for n, x in tree.items()}
  batches = [x.astype(dtype) for x in batches]
  found = matched(narrow(fixed), narrow(moving), apply, symmetry, batches)
  kinds = {np.dtype(x.dtype) for x in found.values()}
  assert kinds == {np.dtype(np.int32), np.dtype(np.float32)}
  back = moved.move(moving, found, symmetry)
  bound = 1e-5 if dtype == np.float32 else 0.2
  assert moved.distance(fixed, back) < bound
