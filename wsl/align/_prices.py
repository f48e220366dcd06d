"""Prices that make an assignment easy: a short auction before the solver."""

import numpy as np

_RAISES = (0.1, 0.0125)  # the least raise of a bid, in standard deviations
_REST = 0.02  # the fraction of rows that may stay without a column
_PASSES = 12  # over all gains, after which an auction is given up


def prices(gains: np.ndarray) -> np.ndarray:
  r"""Returns prices at which most rows want a column of their own.

  In turn every row without a column bids for the one of the greatest profit
  :math:`S_{ij} - p_j`, as much as makes the second best as good. Subtracting
  prices from the columns changes no optimal assignment, but a solver by
  shortest paths then finds nearly all paths of length one.

  Args:
    gains: ``[n, n]``, finite.

  Returns:
    float32 ``[n]``, the price of each column.

  Reference: Bertsekas, "The auction algorithm: a distributed relaxation method
    for the assignment problem", 1988, Annals of Operations Research 14.
  """
  n, gains = len(gains), gains.astype(np.float32, copy=False)
  price = gains.max(0)
  for least in _RAISES:
    raised = least * gains.std()
    owner, waiting, work = np.full(n, -1), np.arange(n), 0
    while len(waiting) > _REST * n:
      work += len(waiting)
      if work > _PASSES * n:
        return np.zeros(n, np.float32)
      profit = gains[waiting] - price
      rows, column = np.arange(len(waiting)), profit.argmax(1)
      best = profit[rows, column]
      profit[rows, column] = -np.inf
      bid = best - profit.max(1) + raised
      # The last of equal columns in this order is the highest bid for it.
      order = np.lexsort((bid, column))
      highest = np.append(np.diff(column[order]) != 0, True)
      winner = order[highest]
      won = column[winner]
      price[won] += bid[winner]
      ousted = owner[won]
      owner[won] = waiting[winner]
      waiting = np.append(np.delete(waiting, winner), ousted[ousted >= 0])
  return price
