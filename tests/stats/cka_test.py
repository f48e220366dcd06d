"""Similarities of features: the unbiased CKA, CCA and their invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.stats import cross_moments_test
from wsl import stats

moments, draws = cross_moments_test.moments, cross_moments_test.draws


def rotation(d, seed=1):
  return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def hsic_1(a, b):
  """The unbiased estimate by its definition, on matrices of rows by rows."""
  n = len(a)
  a, b = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
  one = np.ones(n)
  cross = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
  total = np.trace(a @ b) + cross - 2 / (n - 2) * (one @ a @ b @ one)
  return total / (n * (n - 3))


def oracle(x, y):
  a, b = x @ x.T, y @ y.T
  return hsic_1(a, b) / np.sqrt(hsic_1(a, a) * hsic_1(b, b))


@pytest.mark.parametrize('cuts', [(), (3,), (10, 20, 30, 40)])
def test_streamed_unbiased_is_the_definition(cuts) -> None:
  x, y = draws()
  found = stats.cka(moments(x, y, cuts=cuts))
  np.testing.assert_allclose(found, oracle(x, y), rtol=1e-10)


def test_biased_is_the_definition() -> None:
  x, y = draws()
  h = np.eye(50) - 1 / 50
  a, b = h @ x @ x.T @ h, h @ y @ y.T @ h
  expected = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
  found = stats.cka(moments(x, y), unbiased=False)
  np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize('unbiased', [True, False])
def test_equal_features_have_similarity_1(unbiased) -> None:
  x, _ = draws()
  found = stats.cka(moments(x, x), unbiased=unbiased)
  np.testing.assert_allclose(found, 1, atol=1e-12)


def test_independent_noise_with_more_features_than_rows() -> None:
  rng = np.random.default_rng(0)
  x, y = rng.standard_normal((2, 50, 400))
  both = moments(x, y)
  assert abs(stats.cka(both)) < 0.05
  assert stats.cka(both, unbiased=False) > 0.87
  single = moments(np.asarray(x, np.float32), np.asarray(y, np.float32))
  np.testing.assert_allclose(stats.cka(single), stats.cka(both), atol=1e-5)


@pytest.mark.parametrize('unbiased', [True, False])
def test_cka_invariances(unbiased) -> None:
  x, y = draws()
  cka = lambda x, y: float(stats.cka(moments(x, y), unbiased=unbiased))
  value = cka(x, y)
  assert 0.05 < value < 0.95
  assert cka(y, x) == pytest.approx(value, abs=1e-12)
  assert cka(x @ rotation(4), y) == pytest.approx(value, abs=1e-12)
  assert cka(-7 * x + 5, 0.1 * y - 2) == pytest.approx(value, abs=1e-11)
  order = np.random.default_rng(2).permutation(50)
  assert cka(x[order], y[order]) == pytest.approx(value, abs=1e-12)
  # Not by any invertible map, and not by shuffling one side.
  assert abs(cka(x * np.asarray([9.0, 1, 1, 1]), y) - value) > 1e-2
  assert abs(cka(x[order], y) - value) > 1e-2


def test_a_large_mean_holds_in_float32() -> None:
  x, y = draws(n=400)
  big = [np.asarray(v + 1e3, np.float32) for v in (x, y)]
  found = stats.cka(moments(*big, cuts=(200,)))
  np.testing.assert_allclose(found, oracle(x, y), atol=1e-3)


def correlations(x, y):
  whiten = lambda v: np.linalg.svd(v - v.mean(0), full_matrices=False)[0]
  return np.linalg.svd(whiten(x).T @ whiten(y))[1]


def test_cca_is_the_definition_and_affinely_invariant() -> None:
  x, y = draws()
  rho = correlations(x, y)
  found = stats.cca(moments(x, y))
  np.testing.assert_allclose(found, rho.mean(), rtol=1e-10)
  squared = stats.cca(moments(x, y), reduce='squared')
  np.testing.assert_allclose(squared, (rho**2).mean(), rtol=1e-10)
  rng = np.random.default_rng(3)
  mixed = x @ rng.standard_normal((4, 4)) + rng.standard_normal(4)
  for reduce in ('mean', 'squared'):
    again = stats.cca(moments(mixed, y), reduce=reduce)
    expected = stats.cca(moments(x, y), reduce=reduce)
    np.testing.assert_allclose(again, expected, rtol=1e-9)


def test_svcca_keeps_the_fewest_components_that_hold_the_share() -> None:
  x, y = draws(n=80, d=5, m=3, seed=4)
  x = x * np.asarray([10.0, 5.0, 1.0, 0.1, 0.01])

  def truncated(v, keep):
    u, s, _ = np.linalg.svd(v - v.mean(0), full_matrices=False)
    share = np.cumsum(s**2) / np.sum(s**2)
    return (u * s)[:, : 1 + np.sum(share < keep - 1e-12)]

  for keep in (0.5, 0.99, 0.9999999):
    expected = correlations(truncated(x, keep), truncated(y, keep)).mean()
    found = stats.cca(moments(x, y), keep=keep)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
  # A share that only the full sum reaches keeps everything.
  whole = stats.cca(moments(x, y), keep=1.0)
  np.testing.assert_allclose(whole, correlations(x, y).mean(), rtol=1e-9)


def test_a_number_of_components_of_each_set() -> None:
  x, y = draws(n=80, d=5, m=3, seed=4)

  def truncated(v, count):
    u, s, _ = np.linalg.svd(v - v.mean(0), full_matrices=False)
    return (u * s)[:, :count]

  for count in (1, 2, 4, 9):
    expected = correlations(truncated(x, count), truncated(y, count)).mean()
    found = stats.cca(moments(x, y), components=count)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize('threshold', [0.3, 0.6, 0.98, 1.0])
def test_a_threshold_averages_the_leading_correlations(threshold) -> None:
  x, y = draws(m=4)
  rho = correlations(x, y)
  shares = np.cumsum(rho) / rho.sum()
  count = 1 + np.sum(shares < threshold - 1e-12)
  found = stats.cca(moments(x, y), threshold=threshold)
  np.testing.assert_allclose(found, rho[:count].mean(), rtol=1e-9)


def test_projection_weights_are_the_definition() -> None:
  x, y = draws()
  a, b = x - x.mean(0), y - y.mean(0)
  qx, qy = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
  u, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
  weight = np.abs((qx @ u).T @ a).sum(1)
  found = stats.cca(moments(x, y), reduce='projection')
  np.testing.assert_allclose(found, weight @ rho / weight.sum(), rtol=1e-9)


def test_cca_of_dependent_and_constant_features() -> None:
  x, y = draws()
  doubled = np.concatenate([x, x], 1)
  found = stats.cca(moments(doubled, y))
  np.testing.assert_allclose(found, correlations(x, y).mean(), rtol=1e-8)
  assert stats.cca(moments(0 * x, y)) == 0


def test_similarities_run_under_jit() -> None:
  both = moments(*draws())
  for fn in (stats.cka, stats.cca, stats.residual):
    np.testing.assert_allclose(jax.jit(fn)(both), fn(both), rtol=1e-12)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda m: stats.cca(m, keep=0.0), r'cca\(keep=0.0\)'),
    (lambda m: stats.cca(m, threshold=1.5), r'cca\(threshold=1.5\)'),
    (lambda m: stats.cca(m, components=0), r'cca\(components=0\)'),
    (lambda m: stats.cca(m, reduce='men'), "reduce='men'.*mean"),
  ],
)
def test_bad_arguments(call, message) -> None:
  with pytest.raises(ValueError, match=message):
    call(moments(*draws()))


@pytest.mark.parametrize('fn', [stats.cka, stats.cca, stats.residual])
def test_moments_without_similarity_are_refused(fn) -> None:
  with pytest.raises(ValueError, match='similarity=True'):
    fn(moments(*draws(), similarity=False))


def test_unbiased_needs_four_rows() -> None:
  with pytest.raises(ValueError, match='3 rows, the unbiased'):
    stats.cka(moments(jnp.eye(3), jnp.eye(3)))
