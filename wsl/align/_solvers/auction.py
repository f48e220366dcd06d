r"""Auctions: column prices at which most rows prefer distinct columns."""

import numpy as np

_FIRST_INCREMENT = 0.25  # of bids, relative to the range of the gains, at most
_LAST_INCREMENT = 0.02  # relative to their standard deviation
_RATIO = 5  # of successive increments
_UNASSIGNED = (
  0.02  # an increment's bids end at this fraction of unassigned rows
)
_MAX_PASSES = 20  # they are abandoned after this many passes over the gains
_ROWS = 256  # of the gains whose profits are in memory at a time


def prices(gains: np.ndarray) -> np.ndarray:
  r"""Computes column prices at which most rows prefer distinct columns.

  Each unassigned row i bids for its column of largest profit
  :math:`S_{ij} - p_j`. The bid raises the price until the column is worse than
  the second best by a minimum increment :math:`\epsilon`.

  Args:
    gains: ``[n, n]``, finite.

  Returns:
    float32 ``[n]``, the price of each column; 0 if the auction is abandoned.

  Reference: Bertsekas, "The auction algorithm: a distributed relaxation method
    for the assignment problem", 1988, Annals of Operations Research 14.
  """
  # The dual of the assignment problem is
  #   min_p sum_j p_j + sum_i max_j (S_ij - p_j).
  # By complementary slackness an assignment is optimal if for some prices each
  # row receives a column of maximum profit. Bids keep every assigned row within
  # epsilon of its maximum. So the reduced costs p_j - S_ij are nearly minimal
  # along the assignment, and the solver's shortest augmenting paths have nearly
  # all length one.
  gains = gains.astype(np.float32, copy=False)
  found = gains.mean(0)
  # Large increments first: a few bids carry the prices over the range of the
  # gains, and the small increments begin near their end.
  increments = [_LAST_INCREMENT * _deviation(gains)]
  while increments[-1] * _RATIO < np.ptp(gains) * _FIRST_INCREMENT:
    increments.append(increments[-1] * _RATIO)
  for increment in reversed(increments):
    ended = _raise(found, gains, increment)
  # Equal rows outbid each other by one increment at a time, to no end; the
  # solver is then faster without prices.
  return found if ended else np.zeros_like(found)


def _deviation(gains: np.ndarray) -> float:
  """Returns the standard deviation, without a copy of the gains."""
  means, squares = [], []
  for start in range(0, len(gains), _ROWS):
    rows = gains[start : start + _ROWS]
    means.append(rows.sum(dtype=np.float64))
    squares.append((rows.astype(np.float64) ** 2).sum())
  mean = sum(means) / gains.size
  return float(np.sqrt(max(sum(squares) / gains.size - mean**2, 0.0)))


def _raise(prices: np.ndarray, gains: np.ndarray, increment: float) -> bool:
  """Bids for all columns, in place; returns False if there is no end."""
  n = len(gains)
  owner, unassigned, bids = np.full(n, -1), np.arange(n), 0
  while len(unassigned) > _UNASSIGNED * n:
    bids += len(unassigned)
    if bids > _MAX_PASSES * n:
      return False
    parts = [
      _bids(gains, unassigned[i : i + _ROWS], prices)
      for i in range(0, len(unassigned), _ROWS)
    ]
    column, bid = (np.concatenate(x) for x in zip(*parts))
    bid += increment
    # Sorted by column, then bid: the last entry of a column is its winner.
    order = np.lexsort((bid, column))
    highest = np.append(np.diff(column[order]) != 0, True)
    winner = order[highest]
    sold = column[winner]
    prices[sold] += bid[winner]
    outbid = owner[sold]
    owner[sold] = unassigned[winner]
    unassigned = np.append(np.delete(unassigned, winner), outbid[outbid >= 0])
  return True


def _bids(
  gains: np.ndarray, rows: np.ndarray, prices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the best column of some rows and its lead over the second best."""
  profit = gains[rows]  # a copy
  profit -= prices
  each = np.arange(len(rows))
  column = profit.argmax(1)
  best = profit[each, column]
  profit[each, column] = -np.inf
  return column, best - profit.max(1)
