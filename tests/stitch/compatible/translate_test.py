"""Translation between latent spaces, and its inverse."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from wsl import stitch

EXACT = {'rtol': 0, 'atol': 1e-10}
KINDS = ['affine', 'orthogonal', 'nearest_orthogonal']
SCALES = ['none', 'common', 'each']


def draw(seed=0, rows=12, width=4):
  random = np.random.RandomState(seed)
  return random.randn(rows, width) * np.arange(1, width + 1) + 3


def rotation(width, seed=1):
  return np.linalg.qr(np.random.RandomState(seed).randn(width, width))[0]


@pytest.mark.parametrize('kind', KINDS)
def test_rotation_scale_and_shift_are_recovered_and_inverted(kind):
  x, q = draw(), rotation(4)
  y = 2.5 * x @ q + 7
  found = stitch.translate(x, y, kind=kind, scale='common', ridge=0.0)
  np.testing.assert_allclose(found.weight, 2.5 * q, **EXACT)
  np.testing.assert_allclose(stitch.apply_adapter(found, x), y, **EXACT)
  inverse = stitch.invert(found)
  np.testing.assert_allclose(inverse.weight, q.T / 2.5, **EXACT)
  np.testing.assert_allclose(stitch.apply_adapter(inverse, y), x, **EXACT)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('scale', SCALES)
def test_translation_of_a_space_to_itself_is_the_identity(kind, scale):
  x = draw()
  found = stitch.translate(x, x, kind=kind, scale=scale, ridge=0.0)
  np.testing.assert_allclose(found.weight, np.eye(4), **EXACT)
  np.testing.assert_allclose(found.bias, 0, **EXACT)


def centred(x):
  return x - x.mean(0)


def test_each_kind_by_numpy():
  x, y = draw(), draw(1)
  both = centred(x), centred(y)
  least = np.linalg.lstsq(*both, rcond=None)[0]
  nearest = lambda w: (lambda u, s, v: u @ v)(*np.linalg.svd(w))
  expected = {
    'affine': least,
    'orthogonal': nearest(both[0].T @ both[1]),
    'nearest_orthogonal': nearest(least),
  }
  for kind, weight in expected.items():
    found = stitch.translate(x, y, kind=kind, ridge=0.0)
    np.testing.assert_allclose(found.weight, weight, **EXACT)
    bias = y.mean(0) - x.mean(0) @ weight
    np.testing.assert_allclose(found.bias, bias, **EXACT)


def test_scales_by_numpy():
  x, y = draw(), draw(1)
  each = x.std(0), y.std(0)
  common = [np.full(4, np.sqrt((z.std(0) ** 2).sum())) for z in (x, y)]
  for scale, (from_x, to_y) in (('each', each), ('common', common)):
    u, _, v = np.linalg.svd((centred(x) / from_x).T @ (centred(y) / to_y))
    weight = np.diag(1 / from_x) @ u @ v @ np.diag(to_y)
    found = stitch.translate(x, y, scale=scale)
    np.testing.assert_allclose(found.weight, weight, **EXACT)
  plain, scaled = (
    stitch.translate(x, y, kind='affine', scale=s, ridge=0.0)
    for s in ('none', 'each')
  )
  np.testing.assert_allclose(plain.weight, scaled.weight, **EXACT)


def test_maps_that_are_not_centred_are_linear():
  x, y = draw(), draw(1)
  least = np.linalg.lstsq(x, y, rcond=None)[0]
  polar = lambda m: (lambda u, s, v: u @ v)(*np.linalg.svd(m))
  expected = {
    'affine': least,
    'orthogonal': polar(x.T @ y),
    'nearest_orthogonal': polar(least),
  }
  for kind, weight in expected.items():
    found = stitch.translate(x, y, kind=kind, centre=False)
    np.testing.assert_allclose(found.weight, weight, **EXACT)
    assert found.bias is None
    np.testing.assert_allclose(stitch.apply_adapter(found, x), x @ weight)
    inverse = stitch.invert(found)
    np.testing.assert_allclose(inverse.weight, np.linalg.inv(weight), **EXACT)
  each = np.sqrt((x**2).mean(0)), np.sqrt((y**2).mean(0))
  turned = polar((x / each[0]).T @ (y / each[1]))
  found = stitch.translate(x, y, scale='each', centre=False)
  weight = np.diag(1 / each[0]) @ turned @ np.diag(each[1])
  np.testing.assert_allclose(found.weight, weight, **EXACT)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('centre', [True, False])
def test_the_gain_is_that_of_least_squared_error(kind, centre):
  x, y = draw(), draw(1)
  plain, found = (
    stitch.translate(x, y, kind=kind, scale=scale, centre=centre)
    for scale in ('none', 'gain')
  )
  a, b = (centred(x), centred(y)) if centre else (x, y)
  mapped = a @ np.asarray(plain.weight)
  gain = np.sum(mapped * b) / np.sum(mapped**2)
  np.testing.assert_allclose(found.weight, gain * plain.weight, **EXACT)
  if kind == 'affine':
    np.testing.assert_allclose(gain, 1, **EXACT)


def test_least_squares_have_a_smaller_residual_than_rotations():
  x, y = draw(), draw(1)
  residuals = [
    np.sum((stitch.apply_adapter(found, x) - y) ** 2)
    for found in (
      stitch.translate(x, y, kind=kind, ridge=0.0)
      for kind in ('affine', 'orthogonal', 'nearest_orthogonal')
    )
  ]
  assert residuals[0] < residuals[1] < residuals[2]


@pytest.mark.parametrize('kind', ['orthogonal', 'affine'])
def test_a_narrower_space_is_padded(kind):
  x, q = draw(width=3), rotation(5)
  y = np.concatenate([x, np.zeros((12, 2))], 1) @ q + 1
  found = stitch.translate(x, y, kind=kind, ridge=0.0)
  np.testing.assert_allclose(found.weight, q[:3], **EXACT)
  inverse = stitch.invert(found)
  np.testing.assert_allclose(stitch.apply_adapter(inverse, y), x, **EXACT)
  down = stitch.translate(y, x)
  np.testing.assert_allclose(stitch.apply_adapter(down, y), x, **EXACT)


def test_a_constant_feature_gives_finite_weights():
  x = draw()
  x[:, 2] = 1.5
  found = stitch.translate(x, draw(1), scale='each')
  assert np.isfinite(found.weight).all()


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_dependent_features_get_the_map_of_least_norm(dtype):
  x = np.asarray([[0, 0], [1, 1], [2, 2]], dtype)
  y = np.asarray([[0], [1], [2]], dtype)
  for adapter in (stitch.translate(x, y, kind='affine'), stitch.fit(x, y)):
    np.testing.assert_allclose(adapter.weight, [[0.5], [0.5]], rtol=1e-6)
    np.testing.assert_allclose(adapter.bias, [0], atol=1e-6)


def test_anchors_are_compared():
  x, y = draw(), draw(1, width=6)
  ids = range(12)
  found = stitch.translate(stitch.anchors(x, ids), stitch.anchors(y, ids))
  plain = stitch.translate(x, y)
  np.testing.assert_array_equal(found.weight, plain.weight)
  other = stitch.anchors(y[::-1], reversed(ids))
  with pytest.raises(ValueError, match='same examples in another order'):
    stitch.translate(stitch.anchors(x, ids), other)


MISTAKES = [
  (lambda x: stitch.translate(x, x, kind='afine'), "no kind 'afine'.*'affine'"),
  (lambda x: stitch.translate(x, x, scale='all'), "no scale 'all'"),
  (
    lambda x: stitch.translate(x, x[:3]),
    r'\[12, 4\] and \[3, 4\], expected \[n, d\] and \[n, m\]',
  ),
  (lambda x: stitch.invert(stitch.Adapter()), 'the adapter has no weight'),
  (
    lambda x: stitch.invert(
      stitch.Adapter(anchors=stitch.anchors(x, range(12)))
    ),
    'the adapter has anchors',
  ),
  (
    lambda x: stitch.invert(
      dataclasses.replace(stitch.translate(x, x), down=jnp.ones((4, 1)))
    ),
    'the adapter has down: only a weight and a bias',
  ),
]


@pytest.mark.parametrize(('call', 'message'), MISTAKES)
def test_mistakes(call, message):
  with pytest.raises(ValueError, match=message):
    call(draw())
