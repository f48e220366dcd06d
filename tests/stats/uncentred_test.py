"""Measures of features about the origin, and with Gaussian kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.stats import cka_test, cross_moments_test
from wsl import stats, stitch

moments, draws = cross_moments_test.moments, cross_moments_test.draws


@pytest.mark.parametrize('cuts', [(), (10, 20)])
def test_moments_about_the_origin(cuts) -> None:
  x, y = draws()
  found = stats.about_origin(moments(x, y, cuts=cuts))
  means = (np.zeros(4), np.zeros(6))
  cross_moments_test.assert_moments(found, means, x, y, rtol=1e-12)
  assert stats.about_origin(moments(x, y, similarity=False)).yy is None


def test_measures_that_are_not_centred() -> None:
  x, y = draws()
  both = stats.about_origin(moments(x, y))
  norm = np.linalg.norm
  alignment = norm(x.T @ y) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
  found = stats.cka(both, unbiased=False)
  np.testing.assert_allclose(found, alignment, rtol=1e-10)
  # DeRy's regression: the share of y in the span of the columns of x.
  q = np.linalg.qr(x)[0]
  share = norm(q.T @ y) ** 2 / norm(y) ** 2
  np.testing.assert_allclose(1 - stats.residual(both), share, rtol=1e-10)
  weight = np.linalg.lstsq(x, y, rcond=None)[0]
  for adapter in (stats.least_squares(both), stitch.fit_moments(both)):
    np.testing.assert_allclose(adapter.weight, weight, atol=1e-10)
    np.testing.assert_allclose(adapter.bias, 0, atol=1e-12)
  with pytest.raises(ValueError, match='about the origin have no norms'):
    stats.cka(both)


def kernel(x, width):
  """The kernel matrix by its definition."""
  square = ((x[:, None] - x[None]) ** 2).sum(-1)
  median = np.median(square[np.triu_indices(len(x), 1)])
  return np.exp(-square / (2 * width**2 * median))


@pytest.mark.parametrize('width', [0.4, 1.0])
@pytest.mark.parametrize('unbiased', [True, False])
def test_rbf_cka_is_the_definition(width, unbiased) -> None:
  x, y = draws()
  k, other = kernel(x, width), kernel(y, width)
  h = np.eye(50) - 1 / 50
  biased = lambda a, b: np.trace(a @ h @ b @ h)
  hsic = cka_test.hsic_1 if unbiased else biased
  expected = hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))
  measure = lambda x, y: stats.rbf_cka(x, y, width=width, unbiased=unbiased)
  for fn in (measure, jax.jit(measure)):
    np.testing.assert_allclose(fn(x, y), expected, rtol=1e-9)
  np.testing.assert_allclose(measure(x, x), 1, rtol=1e-12)
  q = cka_test.rotation(4)
  np.testing.assert_allclose(measure(3 * x @ q + 1, y), expected, rtol=1e-8)


def test_rbf_cka_of_a_large_width_is_the_linear_one() -> None:
  x, y = draws()
  for unbiased in (True, False):
    found = stats.rbf_cka(x, y, width=1e4, unbiased=unbiased)
    linear = stats.cka(moments(x, y), unbiased=unbiased)
    np.testing.assert_allclose(found, linear, rtol=1e-6)


def test_rbf_cka_in_float32_subtracts_no_large_sums() -> None:
  """Kernels of many features vary little, and so do their estimates."""
  draw = np.random.default_rng(0).normal
  x, y = draw(size=(16, 512)), draw(size=(16, 64))
  k, other = kernel(x, 1), kernel(y, 1)
  hsic = cka_test.hsic_1
  expected = hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))
  found = stats.rbf_cka(x.astype(np.float32), y.astype(np.float32))
  np.testing.assert_allclose(found, expected, atol=2e-6)


def test_rbf_cka_of_repeated_rows_and_float32() -> None:
  x, y = draws()
  twice = np.concatenate([x, x]), np.concatenate([y, y])
  exact = stats.rbf_cka(*twice)
  assert np.isfinite(exact)
  low = stats.rbf_cka(*(np.asarray(v + 100, np.float32) for v in twice))
  np.testing.assert_allclose(low, exact, atol=1e-3)
  assert low.dtype == jnp.float32
  assert np.isnan(stats.rbf_cka(np.ones((5, 2)), y[:5]))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (
      lambda x, y: stats.rbf_cka(x, y[:-1]),
      '50 and 49 rows: expected the same',
    ),
    (lambda x, y: stats.rbf_cka(x[:3], y[:3]), '3 and 3 rows: .* 4 or more'),
    (
      lambda x, y: stats.rbf_cka(x, y, width=0),
      r'width=0\): expected width > 0',
    ),
  ],
)
def test_bad_arguments(call, message) -> None:
  with pytest.raises(ValueError, match=message):
    call(*draws())
