"""Fits of each kind of adapter: identities that hold exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.stats import cross_moments_test
from wsl import stats, stitch

moments, draws = cross_moments_test.moments, cross_moments_test.draws


def draw(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape)


def rotation(d, seed=1):
  return np.linalg.qr(draw(d, d, seed=seed))[0]


def apply(adapter, x):
  return np.asarray(stitch.apply_adapter(adapter, jnp.asarray(x)))


@pytest.mark.parametrize('kind', ['affine', 'low_rank', 'norm_conv'])
def test_an_exact_affine_relation_is_recovered(kind) -> None:
  x, weight, bias = draw(50, 4), draw(4, 6, seed=1), draw(6, seed=2)
  y = x @ weight + bias
  adapter = stitch.fit(x, y, kind=kind, rank=2, key=jax.random.key(0))
  np.testing.assert_allclose(apply(adapter, x), y, rtol=0, atol=1e-10)
  folded = stitch.fold(adapter)
  np.testing.assert_allclose(folded.weight, weight, rtol=0, atol=1e-10)
  np.testing.assert_allclose(folded.bias, bias, rtol=0, atol=1e-10)
  assert adapter.ridge == 0


def test_a_self_stitch_is_the_identity_map() -> None:
  x, _ = draws()
  adapter = stitch.fit(x, x)
  np.testing.assert_allclose(adapter.weight, np.eye(4), atol=1e-10)
  np.testing.assert_allclose(adapter.bias, 0, atol=1e-10)
  turned = stitch.fit(x, x, kind='orthogonal')
  np.testing.assert_allclose(turned.weight, np.eye(4), atol=1e-10)
  assert apply(stitch.fit(x, x, kind='identity'), x).tolist() == x.tolist()


def test_least_squares_is_invariant_to_affine_maps_of_the_source() -> None:
  x, y = draws()
  changed = x @ draw(4, 4, seed=5) + draw(4, seed=6)
  expected = apply(stitch.fit(x, y), x)
  found = apply(stitch.fit(changed, y), changed)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
  # Procrustes is not invariant.
  turned = [apply(stitch.fit(v, y, kind='orthogonal'), v) for v in (x, changed)]
  assert np.abs(turned[0] - turned[1]).max() > 1e-2


def test_procrustes_recovers_a_rotation_and_a_shift() -> None:
  x, turn = draw(50, 4), rotation(4)
  adapter = stitch.fit(x, x @ turn + 3, kind='orthogonal')
  np.testing.assert_allclose(adapter.weight, turn, atol=1e-10)
  np.testing.assert_allclose(adapter.bias, 3, atol=1e-10)
  scaled = stitch.fit(x, 5 * x @ turn, kind='orthogonal', scale=True)
  np.testing.assert_allclose(scaled.weight, 5 * turn, atol=1e-10)


@pytest.mark.parametrize(('d', 'm'), [(4, 4), (3, 5), (5, 3)])
def test_procrustes_is_orthogonal_and_worse_than_least_squares(d, m) -> None:
  x, y = draw(40, d), draw(40, m, seed=1)
  y = y + x @ draw(d, m, seed=2)
  both = moments(x, y)
  weight = stitch.fit_moments(both, kind='orthogonal').weight
  gram = weight @ weight.T if d <= m else weight.T @ weight
  np.testing.assert_allclose(gram, np.eye(min(d, m)), atol=1e-10)
  turned = stats.residual(both, weight=weight)
  best = stats.residual(both)
  scaled = stitch.fit_moments(both, kind='orthogonal', scale=True).weight
  assert best < stats.residual(both, weight=scaled) < turned


@pytest.mark.parametrize(('d', 'm'), [(3, 5), (5, 3)])
def test_procrustes_equals_that_of_zero_padded_features(d, m) -> None:
  x, y = draw(40, d), draw(40, m, seed=1)
  wide = max(d, m)
  pad = lambda v: np.pad(v - v.mean(0), ((0, 0), (0, wide - v.shape[1])))
  u, _, vt = np.linalg.svd(pad(x).T @ pad(y))
  found = stitch.fit(x, y, kind='orthogonal').weight
  np.testing.assert_allclose(found, (u @ vt)[:d, :m], atol=1e-10)


def test_low_rank_starts_as_affine_and_trains_its_update_only() -> None:
  x, y = draws()
  affine = stitch.fit(x, y)
  adapter = stitch.fit(
    x, y, kind='low_rank', rank=2, alpha=0.5, key=jax.random.key(0)
  )
  np.testing.assert_array_equal(apply(adapter, x), apply(affine, x))
  assert adapter.down.shape == (4, 2)
  assert float(jnp.abs(adapter.down).max()) <= 0.5  # 1 / sqrt(4)
  trained = dataclasses.replace(adapter, up=jnp.ones((2, 6)))
  weight = affine.weight + 0.5 / 2 * adapter.down @ trained.up
  np.testing.assert_allclose(stitch.fold(trained).weight, weight, rtol=1e-12)
  loss = lambda a: jnp.sum(stitch.apply_adapter(a, jnp.asarray(x)) ** 2)
  gradient = jax.grad(loss)(adapter)
  assert not jnp.any(gradient.weight)
  assert jnp.any(gradient.up != 0)
  assert jnp.any(gradient.bias != 0)


def test_norm_conv_equals_affine_with_fixed_and_with_batch_moments() -> None:
  x, y = draws()
  both = moments(x, y)
  expected = apply(stitch.fit_moments(both), x)
  adapter = stitch.fit_moments(both, kind='norm_conv')
  np.testing.assert_allclose(apply(adapter, x), expected, atol=1e-10)
  # The batch is the whole data, so that its moments are the same.
  own = stitch.set_norm_moments(adapter, None)
  np.testing.assert_allclose(apply(own, x), expected, atol=1e-10)
  assert np.abs(apply(own, x[:9]) - expected[:9]).max() > 1e-2
  np.testing.assert_allclose(apply(adapter, x[:9]), expected[:9], atol=1e-10)


def test_fixed_moments_equal_those_of_the_batch_of_all_data() -> None:
  x, y = draws()
  both = moments(x, y)
  fitted = stitch.fit_moments(both, kind='norm_conv')
  trained = stitch.set_norm_moments(fitted, None)
  noise = iter(range(100))
  trained = jax.tree.map(
    lambda v: v + 0.3 * draw(*v.shape, seed=next(noise)), trained
  )
  fixed = stitch.set_norm_moments(trained, both)
  np.testing.assert_allclose(apply(fixed, x), apply(trained, x), atol=1e-10)
  folded = stitch.fold(fixed)
  np.testing.assert_allclose(apply(folded, x), apply(trained, x), atol=1e-10)


def test_composed_and_direct_fits_agree_on_exact_linear_maps() -> None:
  ancestor = draw(50, 5)
  mix = rotation(5) * 2
  a = (ancestor - 1) @ np.linalg.inv(mix)
  b = (ancestor + 2) @ np.linalg.inv(rotation(5, seed=3))
  to_ancestor = [stitch.fit(v, ancestor) for v in (a, b)]
  composed = stitch.compose_maps(*to_ancestor)
  found = stitch.fit(a, b)
  np.testing.assert_allclose(composed.weight, found.weight, atol=1e-10)
  np.testing.assert_allclose(composed.bias, found.bias, atol=1e-10)


@pytest.mark.parametrize(
  ('source', 'target'),
  [((8, 8), (4, 4)), ((2, 2), (4, 4)), ((4,), (2, 2)), ((4, 4), ())],
)
def test_features_of_other_resolutions_and_widths(source, target) -> None:
  x = jnp.asarray(draw(30, *source, 3))
  y = jnp.asarray(draw(30, *target, 5, seed=1))
  adapter = stitch.fit(x, y)
  found = stitch.apply_adapter(adapter, x)
  assert found.shape == y.shape
  left = (y - found).reshape(-1, 5)
  np.testing.assert_allclose(left.sum(0), 0, atol=1e-9)
  rows = stitch.resize(x, target).reshape(-1, 3)
  np.testing.assert_allclose(rows.T @ left, 0, atol=1e-9)


def test_the_adapter_reports_the_ridge_of_dependent_features() -> None:
  x, y = draws()
  adapter = stitch.fit(np.concatenate([x, x], 1), y)
  assert adapter.ridge > 0
  expected = apply(stitch.fit(x, y), x)
  found = apply(adapter, np.concatenate([x, x], 1))
  np.testing.assert_allclose(found, expected, atol=1e-8)
  with pytest.raises(ValueError, match='depend on each other'):
    stitch.fit(np.concatenate([x, x], 1), y, ridge=0.0)


def test_fit_under_vmap() -> None:
  x, y = draws()
  both = jax.vmap(stitch.fit)(
    jnp.stack([x, x + 1]), jnp.stack([y, 2 * jnp.asarray(y)])
  )
  np.testing.assert_allclose(both.weight[1], 2 * both.weight[0], atol=1e-10)
  alone = stitch.fit(x, y)
  np.testing.assert_allclose(both.weight[0], alone.weight, atol=1e-10)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'kind': 'afine'}, "no kind 'afine'.*affine"),
    ({'kind': 'low_rank'}, 'expected rank >= 1 and a key'),
    ({'kind': 'identity'}, 'an identity from width 4 to width 6'),
    ({'ridge': -0.5}, r'ridge=-0.5'),
  ],
)
def test_bad_arguments(arguments, message) -> None:
  with pytest.raises(ValueError, match=message):
    stitch.fit(*draws(), **arguments)


@pytest.mark.parametrize(
  ('x', 'y'),
  [((0, 3), (0, 2)), ((4, 3), (5, 2)), ((3,), (3, 1))],
)
def test_bad_features(x, y) -> None:
  with pytest.raises(ValueError, match='same B >= 1 examples'):
    stitch.fit(np.ones(x), np.ones(y))
