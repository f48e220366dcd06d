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


@pytest.mark.parametrize('kind', ['gauss', 'low rank', 'half zero', 'zero'])
def test_auction_prices_preserve_the_optimum(kind):
  from scipy import optimize

  rng = np.random.default_rng(0)
  gains = rng.normal(size=(600, 600))
  if kind == 'low rank':
    gains = gains[:, :9] @ gains[:9]
  elif kind == 'half zero':
    gains[300:] = 0
  elif kind == 'zero':
    gains[:] = 0
  rows, columns = optimize.linear_sum_assignment(gains, maximize=True)
  found = _value(gains, align.assign_scipy(gains))
  np.testing.assert_allclose(found, gains[rows, columns].sum(), rtol=1e-12)


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
