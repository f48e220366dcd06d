"""Large assignments: by candidates, else by an auction and a dense solver."""

import numpy as np

from wsl.align._solvers import auction, row_blocks, sparse

LARGE = 1024  # the smallest n for which candidates suffice without prices
# Candidate columns of each row: from the columns' means, or from the prices of
# an auction or of similar gains.
_MANY, _FEW = 24, 20
_SOME = 8  # one of so many rows is compared before all of them


def solve(
  gains: np.ndarray, prices: np.ndarray | None = None
) -> sparse.Solution:
  """Solves an assignment, with a copy of the gains only if it is hard.

  Args:
    gains: ``[n, n]``, finite.
    prices: of the columns, from similar gains whose solution is the diagonal.

  Returns:
    The assignment, and prices for similar gains.
  """
  n = len(gains)
  if gains.dtype not in (np.float32, np.float64):
    gains = gains.astype(np.float64)
  columns = _distinct_maxima(gains)
  if columns is not None:
    # They are the optimum, and prices of 0 certify it.
    return sparse.Solution(columns.astype(np.int32), np.zeros(n))
  if prices is not None:
    found = _candidates(gains, prices, diagonal=True)
    if found is not None:
      return found
  if n >= LARGE:
    found = sparse.solve(gains, gains.mean(0), count=_MANY, most=n)
    if found is not None:
      return found
  prices = auction.prices(gains)
  if n >= LARGE:
    found = _candidates(gains, prices)
    if found is not None:
      return found
  from scipy import optimize

  # A price of column j lowers every permutation's total by the same amount:
  # sum_i (S[i, pi(i)] - p[pi(i)]) = sum_i S[i, pi(i)] - sum_j p[j].
  columns = optimize.linear_sum_assignment(prices.astype(np.float64) - gains)[1]
  return sparse.Solution(columns.astype(np.int32), prices)


def _distinct_maxima(gains: np.ndarray) -> np.ndarray | None:
  """Returns the best column of each row if no two rows share one."""
  n, columns = len(gains), None
  # Where maxima are shared, they mostly are among some of the rows.
  for count in (n // _SOME, n):
    best = row_blocks.run(lambda rows: gains[rows].argmax(1), count, entries=n)
    columns = np.concatenate(best)
    if np.bincount(columns).max() > 1:
      return None
  return columns


def _candidates(
  gains: np.ndarray, prices: np.ndarray, *, diagonal: bool = False
) -> sparse.Solution | None:
  """Solves from good prices, whose candidates may be as many again."""
  most = _FEW * len(gains)
  return sparse.solve(gains, prices, count=_FEW, most=most, diagonal=diagonal)
