"""Assignments from the prices of similar gains, and passes in blocks."""

import numpy as np
import pytest

from wsl import align
from wsl.align import _assignment
from wsl.align._solvers import large, row_blocks, sparse

N = 520


@pytest.fixture
def small_blocks(monkeypatch):
  monkeypatch.setattr(row_blocks, '_ENTRIES', 2**13)


def _total(gains, columns):
  assert sorted(columns) == [*range(len(gains))]
  return gains[np.arange(len(gains)), columns].sum(dtype=np.float64)


def _optimum(gains):
  from scipy import optimize

  return _total(gains, optimize.linear_sum_assignment(gains, maximize=True)[1])


def _series(kind, steps=3):
  """Yields gains that change, in the order of the last solution."""
  rng = np.random.default_rng(0)
  gains = rng.standard_normal((N, N)).astype(np.float32)
  if kind == 'integers':
    gains = rng.integers(0, 4, (N, N)).astype(np.float32)
  order = np.arange(N)
  for step in range(steps):
    if kind == 'equal rows' and step == 1:
      gains[: N // 8] = gains[0]
    if kind == 'zeros' and step == 1:
      gains[N // 8 :] = 0
    order = yield gains
    gains = gains[:, order]
    noise = 0.2 * rng.standard_normal((N, N)).astype(np.float32)
    gains = gains + (np.rint(noise) if kind == 'integers' else noise)
    if kind == 'new' and step == 0:
      gains = rng.standard_normal((N, N)).astype(np.float32)


@pytest.mark.parametrize(
  'kind', ['near', 'new', 'integers', 'equal rows', 'zeros']
)
@pytest.mark.usefixtures('small_blocks')
def test_a_solver_with_memory_is_exact(kind):
  solver = _assignment.with_memory(align.assign_scipy)
  series = _series(kind)
  gains, count = next(series), 0
  try:
    while True:
      found = solver(gains)
      optimum = _optimum(gains)
      np.testing.assert_allclose(_total(gains, found), optimum, rtol=1e-12)
      count += 1
      gains = series.send(found)
  except StopIteration:
    assert count == 3


def test_prices_of_near_gains_leave_less_to_solve(monkeypatch):
  """Candidates from the last prices suffice; from wrong ones they do not."""
  calls = []
  assign = sparse._assign
  keep = lambda *x: calls.append(len(x[0])) or assign(*x)
  monkeypatch.setattr(sparse, '_assign', keep)
  series = _series('near')
  monkeypatch.setattr(large, 'LARGE', N)
  first = large.solve(next(series))
  gains = series.send(first.columns)
  calls.clear()
  warm = large.solve(gains, first.prices[first.columns])
  rounds, calls[:] = len(calls), []
  stale = large.solve(gains, first.prices[first.columns][::-1] * 3)
  assert rounds <= 3
  assert rounds < len(calls)
  optimum = _optimum(gains)
  for found in (warm, stale):
    np.testing.assert_allclose(_total(gains, found.columns), optimum, 1e-12)


def test_the_sparse_solver_compares_gains_that_differ_in_the_last_bits():
  """Solutions of rounded gains would have no prices that certify them."""
  n = 32
  bits = np.random.default_rng(0).integers(0, 100, (n, n))
  gains = (1 + bits * 2.0**-23).astype(np.float32)
  found = sparse.solve(gains, np.zeros(n), count=n, most=n**2)
  assert found is not None
  assert _total(gains, found.columns) == _optimum(gains)


def test_an_optimum_that_stays_is_certified_again():
  gains = next(_series('near'))
  first = large.solve(gains)
  gains = gains[:, first.columns]
  again = large.solve(gains, first.prices[first.columns])
  last = large.solve(gains, again.prices)
  np.testing.assert_array_equal(last.columns, np.arange(N))
  np.testing.assert_allclose(last.prices, again.prices)


def test_gains_of_another_size_and_batches_are_solved_anew():
  solver = _assignment.with_memory(align.assign_scipy)
  rng = np.random.default_rng(0)
  for shape in ((N, N), (N + 8, N + 8), (2, 6, 6), (6, 6), (N, N)):
    gains = rng.standard_normal(shape).astype(np.float32)
    np.testing.assert_array_equal(solver(gains), align.assign_scipy(gains))
  with pytest.raises(ValueError, match='a gain is not finite'):
    solver(np.full((N, N), np.nan))
  mine = lambda gains: gains
  assert _assignment.with_memory(mine) is mine


@pytest.mark.usefixtures('small_blocks')
def test_blocks_keep_their_order():
  blocks = row_blocks.run(lambda rows: rows, 1000, entries=100)
  assert len(blocks) > 10
  assert [i for b in blocks for i in range(b.start, b.stop)] == [*range(1000)]
  assert row_blocks.run(lambda rows: rows, 0, entries=100) == []
