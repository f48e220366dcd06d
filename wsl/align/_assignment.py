r"""Linear assignment: the permutation with the largest total gain.

.. math:: \pi^* = \arg\max_\pi \sum_i S[i, \pi(i)]

Every matching function takes its solver as an argument: any function from gains
``[..., n, n]`` to indices ``[..., n]``.
"""

from collections.abc import Callable
import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types

Solver: TypeAlias = Callable[[Any], Any]

_AUCTION_SIZE = 512  # the smallest n for which an auction saves time
_FIRST_INCREMENT = 0.25  # of bids, relative to the range of the gains, at most
_LAST_INCREMENT = 0.02  # relative to their standard deviation
_RATIO = 5  # of successive increments
_UNASSIGNED = (
  0.02  # an increment's bids end at this fraction of unassigned rows
)
_MAX_PASSES = 20  # they are abandoned after this many passes over the gains


def assign_scipy(gains: types.ArrayLike) -> np.ndarray:
  r"""Solves assignments one at a time on the host with SciPy.

  .. math:: \arg\max_\pi \sum_i S[i, \pi(i)]

  A short auction first computes column prices for large problems. This makes
  the assignments of unrelated models several times faster.

  Args:
    gains: ``[..., n, n]``, finite; entry (i, j) is the gain of pairing i with
      j.

  Returns:
    int32 ``[..., n]``: for each i its j.

  Raises:
    ValueError: if a gain is not finite.

  Example:
    >>> assign_scipy([[1.0, 3.0], [2.0, 5.0]]).tolist()
    [0, 1]

  Reference: Crouse, "On implementing 2D rectangular assignment algorithms",
    2016, IEEE Transactions on Aerospace and Electronic Systems 52(4).
  """
  return _assign(gains, _scipy_minimise(), caller='assign_scipy')


def _scipy_minimise() -> Any:
  """Returns SciPy's solver, a function from costs to rows and columns."""
  from scipy import optimize

  return optimize.linear_sum_assignment


def _assign(
  gains: types.ArrayLike,
  minimise: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
  *,
  caller: str,
) -> np.ndarray:
  """Solves each square by a function from costs to rows and columns."""
  gains = np.asarray(gains)
  _check_gains(gains, caller)
  n = gains.shape[-1]
  # If the row-wise maxima lie in distinct columns, they are the optimum.
  result = gains.argmax(-1).astype(np.int32)
  conflict = (np.sort(result, -1) != np.arange(n)).any(-1)
  for index in map(tuple, np.argwhere(conflict)):
    square = gains[index]
    # A price of column j lowers every permutation's total by the same amount:
    # sum_i (S[i, pi(i)] - p[pi(i)]) = sum_i S[i, pi(i)] - sum_j p[j].
    prices = _auction(square) if n >= _AUCTION_SIZE else square.max(0)
    costs = prices.astype(np.float64) - square
    result[index] = minimise(costs)[1]
  return result


def _auction(gains: np.ndarray) -> np.ndarray:
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
  prices = gains.mean(0)
  # Large increments first: a few bids carry the prices over the range of the
  # gains, and the small increments begin near their end.
  increments = [_LAST_INCREMENT * float(gains.std())]
  while increments[-1] * _RATIO < np.ptp(gains) * _FIRST_INCREMENT:
    increments.append(increments[-1] * _RATIO)
  for increment in reversed(increments):
    ended = _raise_prices(prices, gains, increment)
  # Equal rows outbid each other by one increment at a time, to no end; the
  # solver is then faster without prices.
  return prices if ended else np.zeros_like(prices)


def _raise_prices(
  prices: np.ndarray, gains: np.ndarray, increment: float
) -> bool:
  """Bids for all columns, in place; returns False if there is no end."""
  n = len(gains)
  owner, unassigned, bids = np.full(n, -1), np.arange(n), 0
  while len(unassigned) > _UNASSIGNED * n:
    bids += len(unassigned)
    if bids > _MAX_PASSES * n:
      return False
    profit = gains[unassigned]  # a copy
    profit -= prices
    rows, column = np.arange(len(unassigned)), profit.argmax(1)
    best = profit[rows, column]
    profit[rows, column] = -np.inf
    bid = best - profit.max(1) + increment
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


def assign_lapx(gains: types.ArrayLike) -> np.ndarray:
  r"""Solves small assignments on the host with lapx, others with SciPy.

  .. math:: \arg\max_\pi \sum_i S[i, \pi(i)]

  Below n = 512 lapx takes a quarter to all of the time of ``assign_scipy``.
  Larger problems are solved as there, by prices first: lapx would need up to
  twenty times as long for gains of low rank or of uneven rows.

  Args:
    gains: ``[..., n, n]``, finite; entry (i, j) is the gain of pairing i with
      j.

  Returns:
    int32 ``[..., n]``: for each i its j.

  Raises:
    ValueError: if a gain is not finite.
    ImportError: if lapx is not installed.

  Example:
    >>> import pytest
    >>> _ = pytest.importorskip('lap')
    >>> assign_lapx([[1.0, 3.0], [2.0, 5.0]]).tolist()
    [0, 1]

  Reference: Jonker and Volgenant, "A shortest augmenting path algorithm for
    dense and sparse linear assignment problems", 1987, Computing 38.
  """
  try:
    import lap
  except ImportError:
    raise ImportError(
      'assign_lapx: lapx is not installed: pip install lapx, or use '
      'assign_scipy'
    ) from None
  minimise: Any = functools.partial(lap.lapjvr, return_cost=False)
  if np.shape(gains)[-1:] >= (_AUCTION_SIZE,):
    minimise = _scipy_minimise()
  return _assign(gains, minimise, caller='assign_lapx')


def assign_optax(gains: types.ArrayLike) -> types.Array:
  r"""Solves a batch of assignments in JAX; works under ``jit``.

  .. math:: \arg\max_\pi \sum_i S[i, \pi(i)]

  On a CPU the host solvers are faster.

  Args:
    gains: ``[..., n, n]``, finite; entry (i, j) is the gain of pairing i with
      j.

  Returns:
    int32 ``[..., n]``: for each i its j.

  Raises:
    ValueError: if a gain is not finite, unless it is traced.

  Example:
    >>> assign_optax([[1.0, 3.0], [2.0, 5.0]]).tolist()
    [0, 1]
  """
  if not isinstance(gains, jax.core.Tracer):
    _check_gains(np.asarray(gains), 'assign_optax')
  # With x64 enabled the optax solver mixes float dtypes.
  with jax.numpy_dtype_promotion('standard'):
    return _solve_all(jnp.asarray(gains))


@jax.jit
def _solve_all(gains: types.Array) -> types.Array:
  """Maps the optax solver over the leading axes of ``[..., n, n]``."""
  import optax

  n = gains.shape[-1]

  def solve(square: types.Array) -> types.Array:
    # The solver returns (row, column) pairs in no particular row order.
    rows, columns = optax.assignment.hungarian_algorithm(-square)
    result = jnp.zeros(n, np.int32)
    return result.at[rows].set(columns.astype(np.int32))

  return jax.vmap(solve)(gains.reshape(-1, n, n)).reshape(gains.shape[:-1])


def _check_gains(gains: np.ndarray, solver: str) -> None:
  """Raises a ValueError unless gains are square and finite."""
  if gains.ndim < 2 or gains.shape[-1] != gains.shape[-2]:
    raise ValueError(
      f'{solver}: gains have shape {gains.shape}, expected [..., n, n]'
    )
  if not np.isfinite(gains).all():
    raise ValueError(
      f'{solver}: a gain is not finite: are there NaN or inf in the models?'
    )
