r"""Assignment solvers: the permutation of the greatest gain.

Whatever aligns models takes its solver as an argument: any function from gains
``[..., n, n]`` to the indices ``[..., n]`` of the pairing

.. math:: \arg\max_\pi \sum_i S[i, \pi(i)].
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.align import _prices

Solver: TypeAlias = Callable[[Any], Any]
_LARGE = 512  # the size from which an auction before the solver pays


def assign_scipy(gains: types.ArrayLike) -> np.ndarray:
  """Solves assignments one by one on the host with SciPy.

  Large ones are prepared by a short auction, which makes those of unrelated
  models several times faster.

  Args:
    gains: ``[..., n, n]``, finite; what pairing i with j is worth.

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
  from scipy import optimize

  gains = np.asarray(gains)
  _check(gains, 'assign_scipy')
  n = gains.shape[-1]
  result = gains.argmax(-1).astype(np.int32)
  clash = (np.sort(result, -1) != np.arange(n)).any(-1)
  for where in map(tuple, np.argwhere(clash)):
    square = gains[where]
    # Prices of columns change no optimum; they shorten the search.
    price = _prices.prices(square) if n >= _LARGE else square.max(0)
    costs = price.astype(np.float64) - square
    result[where] = optimize.linear_sum_assignment(costs)[1]
  return result


def assign_lapx(gains: types.ArrayLike) -> np.ndarray:
  """Solves assignments on the host with lapx, the fastest for many small ones.

  Args:
    gains: ``[..., n, n]``, finite; what pairing i with j is worth.

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
      'assign_lapx: lapx is not installed: pip install lapx, or take '
      'assign_scipy'
    ) from None
  gains = np.asarray(gains)
  _check(gains, 'assign_lapx')
  costs = -gains.astype(np.float64, order='C')
  result = np.empty(costs.shape[:-1], np.int32)
  for where in np.ndindex(costs.shape[:-2]):
    result[where] = lap.lapjvs(
      costs[where], return_cost=False, prefer_float32=False
    )[1]
  return result


def assign_optax(gains: types.ArrayLike) -> types.Array:
  """Solves assignments in JAX, all of a batch at once; may be traced.

  On a CPU the other two are faster; this one serves under ``jit``.

  Args:
    gains: ``[..., n, n]``, finite; what pairing i with j is worth.

  Returns:
    int32 ``[..., n]``: for each i its j.

  Raises:
    ValueError: if a gain is not finite and is not traced.

  Example:
    >>> assign_optax([[1.0, 3.0], [2.0, 5.0]]).tolist()
    [0, 1]
  """
  if not isinstance(gains, jax.core.Tracer):
    _check(np.asarray(gains), 'assign_optax')
  # The solver mixes float dtypes where x64 is enabled.
  with jax.numpy_dtype_promotion('standard'):
    return _solve_all(jnp.asarray(gains))


@jax.jit
def _solve_all(gains: types.Array) -> types.Array:
  import optax

  n = gains.shape[-1]

  def solve(square: types.Array) -> types.Array:
    # The pairs come in any order of the rows.
    rows, columns = optax.assignment.hungarian_algorithm(-square)
    result = jnp.zeros(n, np.int32)
    return result.at[rows].set(columns.astype(np.int32))

  return jax.vmap(solve)(gains.reshape(-1, n, n)).reshape(gains.shape[:-1])


def _check(gains: np.ndarray, solver: str) -> None:
  if gains.ndim < 2 or gains.shape[-1] != gains.shape[-2]:
    raise ValueError(
      f'{solver}: gains have shape {gains.shape}, expected [..., n, n]'
    )
  if not np.isfinite(gains).all():
    raise ValueError(
      f'{solver}: a gain is not finite: are there NaN or inf in the models?'
    )
