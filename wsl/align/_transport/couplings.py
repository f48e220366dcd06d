r"""Couplings of units of least cost: semi-permutations and optimal transport.

A coupling T ``[..., n, m]`` of n fixed and m moving units has the total mass n,
so that each fixed unit has the mass 1 on average.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from wsl.align import _assignment
from wsl.align._transport import costs, scaling

_MAX_COPIES = 8192  # of units, in an assignment that solves a transport problem


class Problem(NamedTuple):
  """The kind of a coupling.

  Attributes:
    semi: whether every unit of the larger model has one partner.
    regularisation: epsilon, relative to the mean cost; 0 for none.
    unbalanced: lambda, relative to the mean cost; None for exact marginals.
    solver: an assignment solver.
  """

  semi: bool
  regularisation: float
  unbalanced: float | None
  solver: _assignment.Solver


def solve(
  cost: np.ndarray, rows: np.ndarray, columns: np.ndarray, problem: Problem
) -> np.ndarray:
  """Returns the coupling of least cost for each leading index.

  Args:
    cost: ``[..., n, m]``.
    rows: masses of the fixed units, broadcast to ``[..., n]``.
    columns: masses of the moving units, broadcast to ``[..., m]``.
    problem: the kind of the coupling.
  """
  rows = np.broadcast_to(rows, cost.shape[:-1])
  columns = np.broadcast_to(columns, (*cost.shape[:-2], cost.shape[-1]))
  if problem.semi:
    return semi_permutation(cost, rows, columns, problem.solver)
  if not problem.regularisation:
    return exact(cost, rows, columns, problem.solver)
  # Relative to the mean cost under the product of the marginals, the result is
  # the same for models in other units.
  unit = float(np.mean(rows[..., None] * columns[..., None, :] * cost))
  unit /= float(np.mean(rows[..., None] * columns[..., None, :]))
  if not unit > 0:  # all units are equal
    return rows[..., None] * columns[..., None, :] / cost.shape[-2]
  strength = math.inf if problem.unbalanced is None else problem.unbalanced
  return scaling.entropic(
    cost,
    rows,
    columns,
    epsilon=problem.regularisation * unit,
    strength=strength * unit,
  )


def semi_permutation(
  cost: np.ndarray,
  rows: np.ndarray,
  columns: np.ndarray,
  solver: _assignment.Solver,
) -> np.ndarray:
  """Gives every unit of the larger side one partner, and all of the other some.

  Args:
    cost: ``[..., n, m]``.
    rows: masses ``[..., n]``; those of the transport if n >= m.
    columns: masses ``[..., m]``; those of the transport if n < m.
    solver: an assignment solver, for n = m.

  Returns:
    ``[..., n, m]``, one positive entry in each row (n >= m) or column.
  """
  if cost.shape[-2] < cost.shape[-1]:
    turned = semi_permutation(cost.swapaxes(-1, -2), columns, rows, solver)
    return turned.swapaxes(-1, -2)
  cost = cost * rows[..., None]
  n, m = cost.shape[-2:]
  if n == m:
    partner = np.asarray(solver(-cost))
  else:
    # Without a condition on the columns each row takes its best. Each column
    # needs a row of its own, at the least total regret: this is an assignment
    # of the columns to m of the n rows.
    from scipy import optimize

    partner = cost.argmin(-1)
    regret = (cost - cost.min(-1, keepdims=True)).swapaxes(-1, -2)
    for index in np.ndindex(cost.shape[:-2]):
      columns_of, rows_of = optimize.linear_sum_assignment(regret[index])
      partner[index][rows_of] = columns_of
  return np.eye(m)[partner] * rows[..., None]


def exact(
  cost: np.ndarray,
  rows: np.ndarray,
  columns: np.ndarray,
  solver: _assignment.Solver,
) -> np.ndarray:
  """Solves transport problems: by copies of units if masses are equal."""
  n, m = cost.shape[-2:]
  copies = math.lcm(n, m)
  equal = np.allclose(rows, 1, rtol=1e-12) and np.allclose(
    columns, n / m, rtol=1e-12
  )
  if equal and copies <= _MAX_COPIES:
    # If all masses are whole multiples of n / copies, so are the entries of a
    # vertex of the transport polytope: it is an assignment of the copies.
    large = np.repeat(np.repeat(cost, copies // n, -2), copies // m, -1)
    partner = np.asarray(solver(-large)) // (copies // m)
    hot = np.eye(m)[partner].reshape(*cost.shape[:-1], copies // n, m)
    return hot.sum(-2) * (n / copies)
  result = np.empty(cost.shape)
  for index in np.ndindex(cost.shape[:-2]):
    result[index] = _linear_program(cost[index], rows[index], columns[index])
  return result


def _linear_program(
  cost: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
  """Solves one transport problem ``[n, m]`` by the dual simplex method."""
  from scipy import optimize, sparse

  n, m = cost.shape
  of_rows = sparse.kron(sparse.eye(n), np.ones((1, m)))
  of_columns = sparse.kron(np.ones((1, n)), sparse.eye(m))
  # The last equation follows from the others.
  equations = sparse.vstack([of_rows, of_columns]).tocsr()[:-1]
  masses = np.concatenate([rows, columns])[:-1]
  found: Any = optimize.linprog(
    (cost / max(float(np.abs(cost).max()), 1e-300)).ravel(),
    A_eq=equations,
    b_eq=masses,
    method='highs-ds',
    options={
      'primal_feasibility_tolerance': 1e-10,
      'dual_feasibility_tolerance': 1e-10,
    },
  )
  if found.status != 0:
    raise ValueError(f'transport: the linear program failed: {found.message}')
  return np.maximum(found.x, 0).reshape(n, m)


def masses_of(fixed: np.ndarray, moving: np.ndarray) -> costs.Masses:
  """Normalises importances ``[..., n]`` and ``[..., m]`` to masses of sum n."""
  n = fixed.shape[-1]
  scale = lambda x: x * (n / x.sum(-1, keepdims=True))
  return costs.Masses(scale(fixed), scale(moving))
