"""Relative representations and their anchors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch

EXACT = {'rtol': 0, 'atol': 1e-10}


def draw(seed=0, rows=7, width=5, anchors=4):
  random = np.random.RandomState(seed)
  return random.randn(rows, width), random.randn(anchors, width)


def test_an_array_serves_as_anchors_without_ids():
  x, a = draw()
  named = stitch.anchors(a, range(4))
  np.testing.assert_array_equal(
    stitch.relative(x, a), stitch.relative(x, named)
  )
  with pytest.raises(ValueError, match='without ids cannot be compared'):
    stitch.relative(x, a, like=named)


def rotation(width, seed=1):
  return np.linalg.qr(np.random.RandomState(seed).randn(width, width))[0]


def both(x, a, change, **options):
  """Relative representations before and after a map of the feature space."""
  ids = range(len(a))
  return (
    stitch.relative(f(x), stitch.anchors(f(a), ids), **options)
    for f in (lambda z: z, change)
  )


def test_cosine_and_angle_of_known_vectors():
  anchors = stitch.anchors(jnp.asarray([[1.0, 0.0], [1.0, 1.0]]), ids='ab')
  x = jnp.asarray([[[0.0, 2.0], [0.0, 0.0]], [[-3.0, 0.0], [5.0, 5.0]]])
  half = 0.5**0.5
  expected = [[[0, half], [0, 0]], [[-1, -half], [half, 1]]]
  np.testing.assert_allclose(stitch.relative(x, anchors), expected, **EXACT)
  angles = stitch.relative(x[:, 0], anchors, kind='angle')
  np.testing.assert_allclose(angles, [[0.5, 0.25], [1, 0.75]], **EXACT)


def oracle(kind, x, a):
  pairs = [[(z, w) for w in a] for z in x]
  each = {
    'cosine': lambda z, w: z @ w / np.linalg.norm(z) / np.linalg.norm(w),
    'inner': lambda z, w: z @ w / np.sqrt(len(z)),
    'euclidean': lambda z, w: np.linalg.norm(z - w),
    'manhattan': lambda z, w: np.abs(z - w).sum(),
  }
  each['angle'] = lambda z, w: np.arccos(each['cosine'](z, w)) / np.pi
  if kind == 'basis':
    return np.stack([np.linalg.lstsq(a.T, z, rcond=None)[0] for z in x])
  return np.asarray([[each[kind](z, w) for z, w in row] for row in pairs])


KINDS = ['cosine', 'angle', 'inner', 'euclidean', 'manhattan', 'basis']


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_by_numpy(kind):
  x, a = draw()
  anchors = stitch.anchors(a, range(4))
  found = stitch.relative(x, anchors, kind=kind)
  np.testing.assert_allclose(found, oracle(kind, x, a), **EXACT)
  centred = stitch.relative(x, anchors, kind=kind, center=True)
  mean = a.mean(0)
  expected = oracle(kind, x - mean, a - mean)
  np.testing.assert_allclose(centred, expected, **EXACT)
  given = stitch.relative(x, anchors, kind=kind, center=jnp.asarray(mean))
  np.testing.assert_allclose(given, expected, **EXACT)


ROTATED = ['cosine', 'angle', 'inner', 'euclidean', 'basis']
SCALED = ['cosine', 'angle', 'basis']


@pytest.mark.parametrize('kind', KINDS)
def test_invariance_to_rotation_scale_and_shift_as_documented(kind):
  x, a = draw()
  q = rotation(5)
  changes = {
    'rotation': (lambda z: z @ q, kind in ROTATED),
    'scale': (lambda z: 3.0 * z, kind in SCALED),
    'shift': (lambda z: z + 2.0, kind in ('euclidean', 'manhattan')),
  }
  for name, (change, holds) in changes.items():
    before, after = both(x, a, change, kind=kind)
    gap = np.abs(before - after).max()
    assert (gap < 1e-10) == holds, (name, gap)
    assert holds or gap > 0.05, (name, gap)


@pytest.mark.parametrize('kind', ['cosine', 'angle', 'inner'])
def test_centred_and_normalised_kinds_are_invariant_to_all_three(kind):
  x, a = draw()
  q = rotation(5)
  before, after = both(
    x,
    a,
    lambda z: 3.0 * z @ q + 2.0,
    kind=kind,
    center=True,
    normalize=True,
  )
  np.testing.assert_allclose(before, after, **EXACT)
  np.testing.assert_allclose(np.mean(before, -1), 0, **EXACT)
  np.testing.assert_allclose(np.var(before, -1), 1, **EXACT)


def test_coefficients_on_spanning_anchors_are_invariant_to_invertible_maps():
  x, a = draw(anchors=9)
  mixed = np.random.RandomState(2).randn(5, 5)
  before, after = both(x, a, lambda z: z @ mixed, kind='basis')
  np.testing.assert_allclose(before, after, **EXACT)
  np.testing.assert_allclose(before @ a, x, **EXACT)
  before, after = both(x, a[:3], lambda z: z @ mixed, kind='basis')
  assert np.abs(before - after).max() > 0.05


def test_the_width_is_the_number_of_anchors():
  x, a = draw()
  wider = np.concatenate([x, 0 * x], 1), np.concatenate([a, 0 * a], 1)
  found = [
    stitch.relative(z, stitch.anchors(w, range(4))) for z, w in ((x, a), wider)
  ]
  assert found[0].shape == (7, 4)
  np.testing.assert_allclose(*found, **EXACT)


@pytest.mark.parametrize('kind', KINDS)
def test_gradients_are_finite_at_an_anchor_and_at_zero(kind):
  _, a = draw()
  x = jnp.asarray(np.stack([a[0], 0 * a[0]]))
  loss = lambda x, anchors: jnp.sum(
    jnp.sin(stitch.relative(x, anchors, kind=kind))
  )
  grads = jax.grad(loss, argnums=(0, 1))(x, stitch.anchors(a, range(4)))
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32'])
def test_narrow_features_are_computed_in_float32(dtype):
  x, a = draw()
  anchors = stitch.anchors(jnp.asarray(a, dtype), range(4))
  found = stitch.relative(jnp.asarray(x, dtype), anchors, normalize=True)
  assert found.dtype == jnp.float32


def test_jit_and_vmap_over_encoders():
  x, a = draw()
  pair = np.stack([x, 2 * x]), np.stack([a, a])
  each = jax.vmap(
    lambda x, a: stitch.relative(x, stitch.Anchors(a, (0, 1, 2, 3)))
  )
  found = jax.jit(each)(*map(jnp.asarray, pair))
  np.testing.assert_allclose(found[0], found[1], **EXACT)


def test_different_anchors_raise_an_error_in_a_trace_too():
  x, a = draw()
  mine = stitch.anchors(a, [3, 1, 4, 15])
  stitch.check_anchors(mine, stitch.anchors(a[:, :2], [3, 1, 4, 15]))
  cases = [
    (a[[1, 0, 2, 3]], [1, 3, 4, 15], r'has 1 at place 0, .*has 3; .*order'),
    (a, [3, 1, 9, 15], 'has 9 at place 2, encoder 0 has 4; take the same'),
    (a[:3], [3, 1, 4], 'encoder 1 has 3 of them, encoder 0 has 4'),
  ]
  for features, ids, message in cases:
    other = stitch.anchors(features, ids)
    with pytest.raises(ValueError, match=message):
      stitch.check_anchors(mine, other)
    with pytest.raises(ValueError, match=message):
      jax.jit(lambda x, one: stitch.relative(x, one, like=mine))(x, other)
  stitch.relative(x, mine, like=mine)


MISTAKES = [
  (lambda x, a: stitch.anchors(a[0], [0]), r'are \[5\], expected \[k, d\]'),
  (lambda x, a: stitch.anchors(a, [0, 1]), '4 rows of features and 2 ids'),
  (lambda x, a: stitch.anchors(a, [0, 1, 2, 1]), 'id 1 is given twice'),
  (
    lambda x, a: stitch.relative(x, stitch.anchors(a[:, :3], range(4))),
    r'\[7, 5\] and anchors \[4, 3\]: both must come from one encoder',
  ),
  (
    lambda x, a: stitch.relative(x, stitch.anchors(a, range(4)), kind='cos'),
    "no kind 'cos'",
  ),
]


@pytest.mark.parametrize(('call', 'message'), MISTAKES)
def test_mistakes(call, message):
  with pytest.raises(ValueError, match=message):
    call(*draw())
