"""The affine map of least squares, against the dense pseudo-inverse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.stats import cross_moments_test
from wsl import stats

moments, draws = cross_moments_test.moments, cross_moments_test.draws


def dense(x, y):
  """[W; b] by the pseudo-inverse of [x, 1]."""
  found = np.linalg.pinv(np.concatenate([x, np.ones((len(x), 1))], 1)) @ y
  return found[:-1], found[-1]


@pytest.mark.parametrize('cuts', [(), (10, 20, 30, 40)])
def test_streamed_is_the_dense_pseudo_inverse(cuts) -> None:
  x, y = draws()
  weight, bias = dense(x, y)
  found = stats.least_squares(moments(x, y, cuts=cuts, similarity=False))
  np.testing.assert_allclose(found.weight, weight, rtol=0, atol=1e-10)
  np.testing.assert_allclose(found.bias, bias, rtol=0, atol=1e-10)
  assert found.ridge == 0


def test_the_residual_is_orthogonal_to_the_features_and_has_mean_zero() -> None:
  x, y = draws()
  found = stats.least_squares(moments(x, y))
  left = y - (x @ found.weight + found.bias[None])
  np.testing.assert_allclose(x.T @ left, 0, atol=1e-10)
  np.testing.assert_allclose(left.sum(0), 0, atol=1e-10)
  share = np.sum(left**2) / np.sum((y - y.mean(0)) ** 2)
  np.testing.assert_allclose(stats.residual(moments(x, y)), share, rtol=1e-10)


def test_ridge_is_the_regularised_solution() -> None:
  x, y = draws()
  a, b = x - x.mean(0), y - y.mean(0)
  rho = 0.3
  rate = rho * np.trace(a.T @ a) / 4
  weight = np.linalg.solve(a.T @ a + rate * np.eye(4), a.T @ b)
  found = stats.least_squares(moments(x, y), ridge=rho)
  np.testing.assert_allclose(found.weight, weight, rtol=1e-10)
  assert float(found.ridge) == rho
  residuals = [stats.residual(moments(x, y), ridge=r) for r in (0, 0.1, 1.0)]
  assert residuals == sorted(residuals)


def test_features_of_very_different_scales_hold_in_float32() -> None:
  x, _ = draws(n=200)
  x = x * np.asarray([1e-3, 1.0, 1e3, 1.0])
  y = x @ np.asarray([[1e3], [1.0], [1e-3], [-1.0]]) + 2
  both = moments(np.asarray(x, np.float32), np.asarray(y, np.float32))
  found = stats.least_squares(both)
  assert found.ridge == 0
  np.testing.assert_allclose(found.weight[:, 0], [1e3, 1, 1e-3, -1], rtol=1e-3)


def repeated(x):
  return np.concatenate([x, x[:, :2]], 1)


def constant(x):
  return np.concatenate([x, np.full((len(x), 1), 1e3)], 1)


def few(x):
  return np.concatenate([x, x**2, x**3, np.roll(x, 1, 1) * x], 1)[:9]


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('spoil', [repeated, constant, few])
def test_dependent_features_get_a_ridge_and_report_it(spoil, dtype) -> None:
  x, y = draws()
  x = spoil(x - 3)
  y = y[: len(x)]
  both = moments(np.asarray(x, dtype), np.asarray(y, dtype))
  found = stats.least_squares(both)
  epsilon = x.shape[1] * np.finfo(dtype).eps
  assert epsilon / 2 <= found.ridge <= 1e3 * epsilon
  assert np.isfinite(found.weight).all()
  # The predictions are those of the solution of least norm.
  weight, bias = dense(x, y)
  given = x @ np.asarray(found.weight, np.float64) + np.asarray(found.bias)
  tolerance = 1e-6 if dtype == np.float64 else 3e-2
  np.testing.assert_allclose(given, x @ weight + bias, atol=tolerance)


def low_rank(rank: int, *, rows: int, width: int, dtype: type, seed: int = 0):
  """Features of a given rank, with a mean, and noisy images of them."""
  random = np.random.RandomState(seed)
  x = random.randn(rows, rank) @ random.randn(rank, width) + 1
  y = x @ random.randn(width, 3) + random.randn(rows, 3)
  return np.asarray(x, dtype), np.asarray(y, dtype)


def least_norm(x, y):
  """The solution by the pseudo-inverse of centred features, in float64."""
  centred = np.asarray(x, np.float64) - np.mean(x, 0, dtype=np.float64)
  cutoff = 100 * np.finfo(x.dtype).eps
  return np.linalg.pinv(centred, cutoff) @ (y - np.mean(y, 0, dtype=np.float64))


@pytest.mark.parametrize(
  ('rank', 'rows', 'width', 'spread'),
  [(4, 50, 6, 1), (4, 50, 6, 1e3), (40, 300, 64, 1), (19, 12, 64, 1)],
)
@pytest.mark.parametrize(
  ('dtype', 'tolerance'), [(np.float64, 1e-10), (np.float32, 1e-3)]
)
def test_dependent_features_get_the_solution_of_least_norm(
  rank, rows, width, spread, dtype, tolerance
) -> None:
  x, y = low_rank(rank, rows=rows, width=width, dtype=dtype)
  x = x * np.logspace(0, np.log10(spread), width, dtype=dtype)
  found = stats.least_squares(moments(x, y))
  expected = least_norm(x, y)
  error = (
    np.abs(np.asarray(found.weight) - expected).max() / np.abs(expected).max()
  )
  assert error < tolerance


def test_a_constant_feature_gets_weight_0() -> None:
  x, y = draws()
  found = stats.least_squares(moments(constant(x), y))
  np.testing.assert_allclose(found.weight[:-1], dense(x, y)[0], atol=1e-10)
  np.testing.assert_allclose(found.weight[-1], 0, atol=1e-12)


def spoil_none(x):
  return x


@pytest.mark.parametrize('spoil', [spoil_none, repeated])
@pytest.mark.parametrize('ridge', [None, 0.1])
def test_derivatives_by_finite_differences_in_both_modes(spoil, ridge) -> None:
  x, y = draws()
  steps = draws(seed=5)
  along = np.random.RandomState(1).randn(spoil(x).shape[1], y.shape[1])

  def value(t):
    at = moments(spoil(x + t * steps[0]), y + t * steps[1])
    return jnp.sum(stats.least_squares(at, ridge=ridge).weight * along)

  slope = (value(1e-5) - value(-1e-5)) / 2e-5
  both, up, down = (
    moments(spoil(x + t * steps[0]), y + t * steps[1])
    for t in (0.0, 1e-5, -1e-5)
  )
  tangents = [(up.xx - down.xx) / 2e-5, (up.xy - down.xy) / 2e-5]

  def of(xx, xy):
    at = dataclasses.replace(both, xx=xx, xy=xy)
    return jnp.sum(stats.least_squares(at, ridge=ridge).weight * along)

  primals = [both.xx, both.xy]
  forward = jax.jvp(of, primals, tangents)[1]
  reverse = jax.grad(of, argnums=(0, 1))(*primals)
  np.testing.assert_allclose(forward, slope, rtol=1e-6)
  again = sum(jnp.sum(g * t) for g, t in zip(reverse, tangents))
  np.testing.assert_allclose(again, forward, rtol=1e-9)


def test_regular_features_get_none() -> None:
  x, y = draws(n=200, d=20)
  both = moments(np.asarray(x, np.float32), np.asarray(y, np.float32))
  assert stats.least_squares(both).ridge == 0


def test_features_of_no_variance_predict_the_mean() -> None:
  x, y = draws()
  found = stats.least_squares(moments(0 * x, y))
  np.testing.assert_allclose(found.weight, 0)
  np.testing.assert_allclose(found.bias, y.mean(0))
  assert found.ridge > 0


@pytest.mark.parametrize(
  ('ridge', 'message'),
  [
    (-1.0, r'ridge=-1.0.*ridge >= 0'),
    (0.0, r'the 6 features of x depend on each other in 50 rows: give more'),
  ],
)
def test_a_ridge_that_is_too_small_is_refused(ridge, message) -> None:
  x, y = draws()
  with pytest.raises(ValueError, match=message):
    stats.least_squares(moments(repeated(x), y), ridge=ridge)


def test_features_that_are_not_finite_are_refused() -> None:
  x, y = draws()
  x[3, 1] = np.nan
  with pytest.raises(ValueError, match='not finite'):
    stats.least_squares(moments(x, y))


def test_least_squares_under_vmap_chooses_for_each() -> None:
  x, y = draws()
  both = [moments(x, y), moments(np.repeat(x[:, :1], 4, 1), y)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *both)
  found = jax.jit(jax.vmap(stats.least_squares))(stacked)
  assert found.ridge[0] == 0
  assert found.ridge[1] > 0
  alone = stats.least_squares(both[0]).weight
  np.testing.assert_allclose(found.weight[0], alone, rtol=1e-12)


def test_the_residual_of_a_given_map() -> None:
  x, y = draws()
  weight = np.ones((4, 6))
  left = (y - y.mean(0)) - (x - x.mean(0)) @ weight
  share = np.sum(left**2) / np.sum((y - y.mean(0)) ** 2)
  found = stats.residual(moments(x, y), weight=jnp.asarray(weight))
  np.testing.assert_allclose(found, share, rtol=1e-12)
