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
from wsl.align._solvers import large, row_blocks

Solver: TypeAlias = Callable[[Any], Any]

_SMALLEST_LAPX = 64  # n, for lapx to save time
_MEDIUM = 512  # the smallest n for which prices save time


def assign_scipy(gains: types.ArrayLike) -> np.ndarray:
  r"""Solves assignments one at a time on the host with SciPy.

  .. math:: \arg\max_\pi \sum_i S[i, \pi(i)]

  From n = 512 an auction first computes prices of the columns. From n = 1024 a
  sparse problem is solved, of a few dozen candidate columns for each row, and
  prices certify that its solution is optimal among all columns: the assignments
  of unrelated models take a third of the time, and no copy of the gains is
  made. Where the candidates do not suffice (gains of very uneven rows and
  columns, many rows without gains) all gains are copied in float64.

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
    2016, IEEE Transactions on Aerospace and Electronic Systems 52(4); Jonker
    and Volgenant, "A shortest augmenting path algorithm for dense and sparse
    linear assignment problems", 1987, Computing 38.
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
    if n >= _MEDIUM:
      result[index] = large.solve(square).columns
    else:
      result[index] = minimise(square.max(0) - square.astype(np.float64))[1]
  return result


def with_memory(solver: Solver) -> Solver:
  """Returns a solver for gains that change little from call to call.

  Those of n >= 512 are solved from the prices of the last call. The next gains
  are expected to have their columns in the order of the last solution. Any
  prices lead to an optimal assignment, near ones in less time.

  Args:
    solver: any; all but ``assign_scipy`` are returned as they are.
  """
  if solver is not assign_scipy:
    return solver
  prices: list[np.ndarray] = []

  def assign(gains: types.ArrayLike) -> np.ndarray:
    gains = np.asarray(gains)
    if gains.ndim != 2 or len(gains) < _MEDIUM:
      return assign_scipy(gains)
    _check_gains(gains, 'assign_scipy')
    last = prices.pop() if prices else None
    if last is not None and last.shape != gains.shape[:1]:
      last = None
    found = large.solve(gains, last)
    prices.append(found.prices[found.columns])
    return found.columns

  return assign


def assign_lapx(gains: types.ArrayLike) -> np.ndarray:
  r"""Solves small assignments on the host with lapx, others with SciPy.

  .. math:: \arg\max_\pi \sum_i S[i, \pi(i)]

  From n = 64 to 511 lapx takes 0.3 to 0.9 of the time of ``assign_scipy``. All
  other problems are solved as there: below, both take microseconds; above, lapx
  would need up to twenty times as long for gains of low rank or of uneven rows.

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
  n = np.shape(gains)[-1] if np.ndim(gains) else 0
  if not _SMALLEST_LAPX <= n < _MEDIUM:
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
  if not gains.size:
    return
  rows = gains.reshape(-1, gains.shape[-1])
  extremes = row_blocks.run(
    lambda block: (rows[block].min(), rows[block].max()),
    len(rows),
    entries=gains.shape[-1],
  )
  if not np.isfinite(extremes).all():
    raise ValueError(
      f'{solver}: a gain is not finite: are there NaN or inf in the models?'
    )
