r"""Large assignments by few candidate columns for each row, exact by duality.

An assignment :math:`\pi` is optimal if there are prices with

.. math:: S_{i\pi(i)} - p_{\pi(i)} \ge S_{ij} - p_j \quad \text{for all } i, j

(complementary slackness). An optimal assignment uses almost only columns that
are among the best few dozen of their rows. So the problem is solved among
these by a sparse solver, prices are computed that certify the solution among
them, and one pass over all gains finds the pairs that violate the inequality.
They become candidates too, until there are none. No copy of the gains is made.
"""

from typing import NamedTuple

import numpy as np

_ROWS = 64  # of the gains that are compared at a time
_MAX_ROUNDS = 12
_MAX_CANDIDATES = 48  # for each row, on average
_MAX_SWEEPS = 300  # of the prices
_UNIT = 2.0**-22  # of the solver's integers, relative to the largest number
# Rounding, in units of the largest gain or price: of the prices' updates, and
# of the certificate.
_UPDATE, _CERTIFIED = 1e-15, 1e-14


class Solution(NamedTuple):
  """An optimal assignment and the prices that certify it.

  Attributes:
    columns: int32 ``[n]``, the column of each row.
    prices: float64 ``[n]``, of the columns.
  """

  columns: np.ndarray
  prices: np.ndarray


def solve(
  gains: np.ndarray, prices: np.ndarray, *, count: int, most: int
) -> Solution | None:
  """Solves an assignment from prices of the columns.

  Args:
    gains: ``[n, n]``, finite.
    prices: ``[n]``, to compare columns by in the choice of candidates.
    count: the number of candidates of each row at first.
    most: the number of violated pairs, of all rows together, above which the
      candidates are considered useless.

  Returns:
    The solution, or ``None`` if the candidates do not suffice.

  Reference: Jonker and Volgenant, "A shortest augmenting path algorithm for
    dense and sparse linear assignment problems", 1987, Computing 38, for the
    sparse solver and the idea of candidates.
  """
  n = len(gains)
  pairs = _best_columns(gains, prices, min(count, n))
  prices = prices.astype(np.float64)
  for _ in range(_MAX_ROUNDS):
    rows, columns = pairs // n, pairs % n
    values = gains[rows, columns].astype(np.float64)
    found = _assign(rows, columns, values, prices)
    if found is None:
      return None
    raised = _certify(rows, columns, values, found, prices)
    if raised is None:
      return None
    prices = raised
    violated = _violated(gains, found, prices)
    if not len(violated):
      return Solution(found.astype(np.int32), prices)
    pairs = np.union1d(pairs, violated)
    if len(violated) > most or len(pairs) > _MAX_CANDIDATES * n:
      return None
  return None


def _best_columns(
  gains: np.ndarray, prices: np.ndarray, count: int
) -> np.ndarray:
  """Returns the sorted pairs n i + j of each row's most profitable columns."""
  n = len(gains)
  prices = prices.astype(gains.dtype)
  found = []
  for start in range(0, n, _ROWS):
    profit = gains[start : start + _ROWS] - prices
    best = np.argpartition(profit, n - count, axis=1)[:, n - count :]
    found.append(np.sort(best, axis=1))
  return (np.concatenate(found) + n * np.arange(n)[:, None]).ravel()


def _assign(
  rows: np.ndarray, columns: np.ndarray, values: np.ndarray, prices: np.ndarray
) -> np.ndarray | None:
  """Assigns columns among sorted pairs; ``None`` if some row gets none."""
  from scipy import sparse

  # The solver reduces prices until differences vanish. Between equal gains
  # these are rounding errors, and it would not end. So it is given integers,
  # whose sums are exact. The certificate is computed from the gains themselves.
  unit = max(np.abs(values).max(), np.abs(prices).max()) * _UNIT or 1.0
  profits = np.rint(values / unit) - np.rint(prices / unit)[columns]
  first = np.searchsorted(rows, np.arange(len(prices)))
  # Costs are positive: the solver takes a cost of zero for no pair.
  costs = 1 + np.maximum.reduceat(profits, first)[rows] - profits
  graph = sparse.csr_array((costs, columns, np.append(first, len(rows))))
  try:
    return sparse.csgraph.min_weight_full_bipartite_matching(graph)[1]
  except ValueError:  # no full matching exists
    return None


def _certify(
  rows: np.ndarray,
  columns: np.ndarray,
  values: np.ndarray,
  found: np.ndarray,
  prices: np.ndarray,
) -> np.ndarray | None:
  """Raises prices until every row's column is its best among the pairs.

  The price of column j is at least S_ij - S_i,pi(i) + p_pi(i) for every pair
  (i, j): longest paths, by the algorithm of Bellman and Ford. They are finite
  if the assignment is optimal among the pairs.

  Args:
    rows: of the pairs, sorted.
    columns: of the pairs.
    values: their gains.
    found: the column of each row.
    prices: at which to begin.

  Returns:
    The prices, or ``None`` if they do not converge.
  """
  n = len(found)
  own = np.empty(n)
  assigned = columns == found[rows]
  own[rows[assigned]] = values[assigned]
  owner = np.argsort(found)
  first = np.searchsorted(rows, np.arange(n + 1))
  excess = values - own[rows]
  prices = prices.copy()
  tolerance = _UPDATE * (np.abs(values).max() + np.abs(prices).max())
  active = np.arange(n)  # rows whose own price was raised
  for _ in range(_MAX_SWEEPS):
    counts = first[active + 1] - first[active]
    ends = np.cumsum(counts)
    chosen = np.arange(ends[-1]) + (first[active] - ends + counts).repeat(
      counts
    )
    bound = excess[chosen] + prices[found[active]].repeat(counts)
    before = prices.copy()
    np.maximum.at(prices, columns[chosen], bound)
    active = owner[np.nonzero(prices > before + tolerance)[0]]
    if not len(active):
      return prices
  return None


def _violated(
  gains: np.ndarray, found: np.ndarray, prices: np.ndarray
) -> np.ndarray:
  """Returns the sorted pairs n i + j that their rows prefer to their own."""
  n = len(gains)
  own = gains[np.arange(n), found] - prices[found]
  scale = max(float(gains.max()), -float(gains.min())) + np.abs(prices).max()
  limit = own + _CERTIFIED * scale
  pairs = []
  for start in range(0, n, _ROWS):
    profit = gains[start : start + _ROWS] - prices  # in float64
    preferred = profit > limit[start : start + _ROWS, None]
    pairs.append(start * n + np.flatnonzero(preferred))
  return np.concatenate(pairs)
