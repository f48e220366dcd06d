"""Candidate columns of an assignment: those of large profit in each row."""

import numpy as np

from wsl.align._solvers import row_blocks

_SAMPLED = 8  # one of so many columns is compared to find a threshold


def best_columns(
  gains: np.ndarray, prices: np.ndarray, count: int
) -> np.ndarray:
  """Returns sorted pairs n i + j of profitable columns, ``count`` a row.

  A row's candidates are its columns of at least the profit that the same share
  of a sample of the columns has. Where many profits are equal, as those of
  units without weights, each row has its ``count`` best columns.
  """
  n = len(gains)
  prices = prices.astype(gains.dtype)
  sampled = -(-n // _SAMPLED)
  rank = max(1, count * sampled // n)

  def above(rows: slice) -> np.ndarray:
    profit = gains[rows] - prices
    sample = np.partition(profit[:, ::_SAMPLED], sampled - rank, axis=1)
    chosen = profit >= sample[:, sampled - rank, None]
    return rows.start * n + np.flatnonzero(chosen)

  def best(rows: slice) -> np.ndarray:
    profit = gains[rows] - prices
    chosen = np.argpartition(profit, n - count, axis=1)[:, n - count :]
    chosen.sort(axis=1)
    return (chosen + n * np.arange(rows.start, rows.stop)[:, None]).ravel()

  pairs = np.concatenate(row_blocks.run(above, n, entries=n))
  if len(pairs) > 2 * count * n:
    pairs = np.concatenate(row_blocks.run(best, n, entries=n))
  return pairs
