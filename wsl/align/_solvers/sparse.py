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

from wsl.align._solvers import candidates, row_blocks

_MAX_ROUNDS = 12
_MAX_CANDIDATES = 48  # for each row, on average
_MAX_NEAR = 16  # of them added at once
_MAX_SWEEPS = 300  # of the prices
_UNIT = 2.0**-26  # of the solver's integers, relative to the largest number
# Rounding, in units of the largest gain or price: of the prices' updates, and
# of the certificate.
_UPDATE, _CERTIFIED = 1e-15, 1e-14


class Solution(NamedTuple):
  """An optimal assignment and prices of its columns.

  Attributes:
    columns: int32 ``[n]``, the column of each row.
    prices: ``[n]``, of the columns; they certify the assignment, or are a start
      for gains that differ little.
  """

  columns: np.ndarray
  prices: np.ndarray


def solve(
  gains: np.ndarray,
  prices: np.ndarray,
  *,
  count: int,
  most: int,
  diagonal: bool = False,
) -> Solution | None:
  """Solves an assignment from prices of the columns.

  Args:
    gains: ``[n, n]``, finite.
    prices: ``[n]``, to compare columns by in the choice of candidates.
    count: the number of candidates of each row at first, on average.
    most: the number of violated pairs, of all rows together, above which the
      candidates are considered useless.
    diagonal: whether pairs (i, i) are candidates: near the solution they make
      sure that there is a full matching.

  Returns:
    The solution, or ``None`` if the candidates do not suffice.

  Reference: Jonker and Volgenant, "A shortest augmenting path algorithm for
    dense and sparse linear assignment problems", 1987, Computing 38, for the
    sparse solver and the idea of candidates.
  """
  n = len(gains)
  prices = prices.astype(np.float64)
  pairs = candidates.best_columns(gains, prices, min(count, n))
  if diagonal:
    pairs = _merge(pairs, np.arange(n) * (n + 1))
  for _ in range(_MAX_ROUNDS):
    rows = pairs // n
    columns = pairs - n * rows
    values = gains[rows, columns].astype(np.float64)
    found = _assign(rows, columns, values, prices)
    if found is None:
      return None
    raised = _certify(rows, columns, values, found, prices)
    if raised is None:
      return None
    # The next prices will be higher by less than these, so that pairs that are
    # violated then are near the limit now.
    margin = float((raised - prices).mean())
    prices = raised
    near, violated = _violated(gains, found, prices, margin)
    if not violated.any():
      return Solution(found.astype(np.int32), prices)
    if len(near) > _MAX_NEAR * n:
      near = near[violated]
    pairs = _merge(pairs, near)
    if violated.sum() > most or len(pairs) > _MAX_CANDIDATES * n:
      return None
  return None


def _merge(*parts: np.ndarray) -> np.ndarray:
  """Returns the union of sorted integers, sorted."""
  joined = np.concatenate(parts)
  joined.sort(kind='stable')  # merges the sorted parts
  return joined[np.append(True, joined[1:] != joined[:-1])]


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
  counts, first = np.diff(first), first[:-1]
  prices = prices.copy()
  tolerance = _UPDATE * (np.abs(own).max() + np.abs(prices).max())
  excess = values - (own + tolerance)[rows]
  every = np.arange(len(rows))
  raised = every[:n]  # columns whose price was raised
  marked = np.zeros(n, bool)
  for _ in range(_MAX_SWEEPS):
    active = owner[raised]
    length = counts[active]
    ends = length.cumsum()
    chosen = (first[active] - ends + length).repeat(length)
    chosen += every[: len(chosen)]  # all pairs of the active rows
    bound = excess[chosen]
    bound += prices[raised].repeat(length)
    targets = columns[chosen]
    (higher,) = (bound > prices[targets]).nonzero()
    if not len(higher):
      return prices
    targets = targets[higher]
    np.maximum.at(prices, targets, bound[higher])
    marked[targets] = True
    (raised,) = marked.nonzero()
    marked[raised] = False
  return None


def _violated(
  gains: np.ndarray,
  found: np.ndarray,
  prices: np.ndarray,
  margin: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Compares all columns to those that the rows have.

  Args:
    gains: ``[n, n]``.
    found: the column of each row.
    prices: of the columns.
    margin: of profits that are nearly preferred.

  Returns:
    The sorted pairs n i + j that row i prefers to its own, or nearly; and for
    each whether it does.
  """
  n, dtype = len(gains), gains.dtype
  own = gains[np.arange(n), found] - prices[found]
  scale = np.abs(own).max() + 2 * np.abs(prices).max()
  limit = own + _CERTIFIED * scale
  # In the gains' own dtype prices, differences and limits have a relative
  # rounding of eps / 2 each. Pairs within these errors are compared in float64.
  # Rounded differences do not decrease with the gain, so that those above the
  # limit have no error larger than that at the limit, whose magnitude is less
  # than the scale.
  rounding = 4 * float(np.finfo(dtype).eps) * scale
  near = (limit - rounding - margin).astype(dtype)
  rounded = prices.astype(dtype)

  def preferred(block: slice) -> tuple[np.ndarray, np.ndarray]:
    profit = gains[block] - rounded
    chosen = np.flatnonzero(profit > near[block, None])
    rows = chosen // n
    columns = chosen - n * rows
    rows += block.start
    exact = gains[rows, columns] - prices[columns] > limit[rows]
    return block.start * n + chosen, exact

  pairs, exact = zip(*row_blocks.run(preferred, n, entries=n))
  return np.concatenate(pairs), np.concatenate(exact)
