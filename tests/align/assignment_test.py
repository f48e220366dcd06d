"""Assignment solvers against brute force and against each other."""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align


def _lapx(gains):
  pytest.importorskip('lap')
  return align.assign_lapx(gains)


SOLVERS = [align.assign_scipy, _lapx, align.assign_optax]


def _value(gains, indices):
  indices = np.asarray(indices)
  rows = np.arange(gains.shape[-1])
  assert np.array_equal(np.sort(indices), rows)
  return gains[rows, indices].sum()


@pytest.mark.parametrize('solver', SOLVERS)
@pytest.mark.parametrize('n', [1, 2, 3, 6])
def test_optimal_against_all_permutations(solver, n):
  rng = np.random.default_rng(n)
  for kind in ('gauss', 'integers', 'zeros'):
    gains = {
      'gauss': rng.normal(size=(n, n)),
      'integers': rng.integers(0, 3, size=(n, n)).astype(float),  # equal gains
      'zeros': np.zeros((n, n)),
    }[kind]
    best = max(
      gains[range(n), list(p)].sum() for p in itertools.permutations(range(n))
    )
    np.testing.assert_allclose(_value(gains, solver(gains)), best, rtol=1e-12)


def _gains(kind, n):
  rng = np.random.default_rng(0)
  gains = rng.normal(size=(n, n))
  if kind == 'low rank':
    gains = gains[:, :9] @ gains[:9]
  elif kind == 'spectrum':
    gains = (gains * np.exp(2 * rng.normal(size=n))) @ rng.normal(size=(n, n))
  elif kind == 'uneven':
    gains *= np.exp(rng.normal(size=(n, 1)))
  elif kind == 'equal rows':
    gains[: n // 4] = gains[0]
  elif kind == 'half zero':
    gains[n // 2 :] = 0
  elif kind == 'zero':
    gains[:] = 0
  return gains


KINDS = [
  'gauss',
  'low rank',
  'spectrum',
  'uneven',
  'equal rows',
  'half zero',
  'zero',
]


@pytest.mark.parametrize('kind', KINDS)
def test_auction_prices_preserve_the_optimum(kind):
  from scipy import optimize

  gains = _gains(kind, 600)
  rows, columns = optimize.linear_sum_assignment(gains, maximize=True)
  found = _value(gains, align.assign_scipy(gains))
  np.testing.assert_allclose(found, gains[rows, columns].sum(), rtol=1e-12)


@pytest.mark.parametrize('solver', [align.assign_scipy, _lapx])
@pytest.mark.parametrize('n', [40, 520])
@pytest.mark.parametrize('kind', KINDS)
def test_prices_certify_the_optimum(kind, n, solver):
  """Complementary slackness: each row has a column of maximum profit."""
  gains = _gains(kind, n).astype(np.float32)
  found = solver(gains)
  assert sorted(found) == [*range(n)]
  # Column j of the permuted gains belongs to row j. Bellman-Ford finds prices
  # with S[i, i] - p[i] >= S[i, j] - p[j], or a cycle that improves the total.
  permuted = gains[:, found].astype(np.float64)
  excess = permuted - np.diag(permuted)[:, None]
  prices = np.zeros(n)
  for _ in range(n):
    raised = np.maximum(prices, (excess + prices[:, None]).max(0))
    if np.allclose(raised, prices, rtol=0, atol=1e-9 * np.abs(gains).max()):
      return
    prices = raised
  pytest.fail('the assignment is not optimal')


@pytest.mark.parametrize('kind', ['gauss', 'low rank', 'spectrum', 'uneven'])
def test_the_auction_ends_for_uneven_gains(kind):
  """Increments that start at the range of the gains reach every price."""
  from wsl.align._solvers import auction

  gains = _gains(kind, 600)
  prices = auction.prices(gains)
  best = (gains - prices).argmax(1)
  assert len(np.unique(best)) > 0.9 * len(np.unique(gains.argmax(1)))
  assert len(np.unique(best)) > 400


def _fails(gains, found, prices):
  """Returns the pairs that the prices do not certify."""
  gains = gains.astype(np.float64)
  profit = gains - prices
  own = profit[np.arange(len(gains)), found]
  scale = np.abs(gains).max() + np.abs(prices).max()
  return np.argwhere(profit > own[:, None] + 1e-12 * scale)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('kind', ['gauss', 'low rank', 'uneven'])
def test_candidates_are_certified_by_prices(kind, dtype):
  """Among all pairs, not only among the candidates."""
  from wsl.align._solvers import auction, sparse

  gains = _gains(kind, 600).astype(dtype)
  start = gains.mean(0) if kind == 'gauss' else auction.prices(gains)
  found, prices = sparse.solve(gains, start, count=16, most=9600)
  assert sorted(found) == [*range(600)]
  assert not len(_fails(gains, found, prices))
  assert len(_fails(gains, np.roll(found, 1), prices)) > 600


def test_candidates_that_do_not_suffice_are_given_up():
  from wsl.align._solvers import sparse

  gains = _gains('equal rows', 600)
  assert sparse.solve(gains, gains.mean(0), count=16, most=600) is None


@pytest.mark.parametrize('noise', [0, 1e-12, 1e-6])
def test_copies_of_units_do_not_delay_the_sparse_solver(noise):
  """Bids between nearly equal gains would not end in floating point."""
  from scipy import optimize

  rng = np.random.default_rng(0)
  gains = np.repeat(rng.normal(size=(256, 256)), 4, 0).repeat(4, 1)
  gains *= 1 + noise * rng.normal(size=(1024, 1024))
  rows, columns = optimize.linear_sum_assignment(gains, maximize=True)
  found = _value(gains, align.assign_scipy(gains))
  np.testing.assert_allclose(found, gains[rows, columns].sum(), rtol=1e-12)


def test_large_gains_are_not_copied():
  import tracemalloc

  gains = np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
  align.assign_scipy(gains)
  tracemalloc.start()
  try:
    found = align.assign_scipy(gains)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < gains.nbytes
  assert sorted(found) == [*range(1024)]


@pytest.mark.parametrize('solver', SOLVERS)
def test_total_gain_equals_scipy(solver):
  from scipy import optimize

  gains = np.random.default_rng(0).normal(size=(40, 40))
  rows, columns = optimize.linear_sum_assignment(gains, maximize=True)
  np.testing.assert_allclose(
    _value(gains, solver(gains)), gains[rows, columns].sum(), rtol=1e-12
  )


@pytest.mark.parametrize('solver', SOLVERS)
def test_a_planted_permutation_is_found(solver):
  rng = np.random.default_rng(0)
  planted = rng.permutation(12)
  gains = np.eye(12)[planted] + 0.01 * rng.normal(size=(12, 12))
  np.testing.assert_array_equal(solver(gains), planted)


@pytest.mark.parametrize('solver', SOLVERS)
def test_leading_axes_are_batch_axes(solver):
  gains = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
  found = solver(gains)
  assert found.shape == (2, 3, 4)
  assert found.dtype == np.int32
  for i, j in np.ndindex(2, 3):
    np.testing.assert_array_equal(found[i, j], align.assign_scipy(gains[i, j]))


@pytest.mark.parametrize('solver', SOLVERS)
@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_gains_must_be_finite(solver, bad):
  with pytest.raises(ValueError, match='a gain is not finite'):
    solver(np.asarray([[0.0, bad], [1.0, 0.0]]))


@pytest.mark.parametrize('solver', SOLVERS)
def test_gains_must_be_square(solver):
  with pytest.raises(ValueError, match=r'shape \(2, 3\), expected'):
    solver(np.zeros((2, 3)))


def test_optax_under_jit():
  gains = jax.random.normal(jax.random.key(0), (5, 7, 7), jnp.float32)
  found = jax.jit(align.assign_optax)(gains)
  np.testing.assert_array_equal(found, align.assign_scipy(gains))


def test_a_missing_lapx_is_reported(monkeypatch):
  monkeypatch.setitem(sys.modules, 'lap', None)
  with pytest.raises(ImportError, match='pip install lapx'):
    align.assign_lapx(np.eye(2))
