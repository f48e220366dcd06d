r"""Entropic transport by Sinkhorn's iteration in the log domain.

.. math:: \min_T \langle C, T \rangle + \epsilon\,
  \mathrm{KL}(T \,\|\, \mu \nu^\top / n) + \lambda\, \mathrm{KL}(T 1 \,\|\, \mu)
  + \lambda\, \mathrm{KL}(T^\top 1 \,\|\, \nu)

with :math:`\mathrm{KL}(a \| b) = \sum a \log (a / b) - a + b`. For an infinite
lambda both marginals are exact.
"""

import numpy as np

_ITERATIONS = 10_000
_TOLERANCE = 1e-11  # of the potentials, relative to epsilon
_RATIO = 4  # of successive regularisations
_COARSE = 30  # iterations at each but the last


def entropic(
  cost: np.ndarray,
  rows: np.ndarray,
  columns: np.ndarray,
  *,
  epsilon: float,
  strength: float = np.inf,
) -> np.ndarray:
  """Solves entropic transport problems, balanced or not.

  Args:
    cost: C ``[..., n, m]``.
    rows: mu ``[..., n]``, positive, of sum n.
    columns: nu ``[..., m]``, positive, of sum n.
    epsilon: the regularisation, > 0, in the unit of the cost.
    strength: lambda, > 0, in the same unit.

  Returns:
    T ``[..., n, m]``.

  Reference: Chizat et al., "Scaling Algorithms for Unbalanced Transport
    Problems", 2016, arXiv:1607.05816.
  """
  # T = (mu nu^T / n) exp((f + g - C) / eps), and the condition of optimality of
  # the rows is f = -lambda log(T 1 / mu). With s = -eps log sum_j nu_j / n
  # exp((g_j - C_ij) / eps) this is f = s lambda / (lambda + eps).
  log_rows = np.log(rows)[..., None]
  log_columns = np.log(columns)[..., None, :]
  total = np.log(rows.sum(-1))[..., None, None]
  f, g = np.zeros_like(cost[..., :1]), np.zeros_like(cost[..., :1, :])
  for eps in _schedule(epsilon, cost):
    # At a large epsilon a few iterations carry the potentials over the range of
    # the costs; they start the next one.
    damping = 1.0 if np.isinf(strength) else strength / (strength + eps)
    for _ in range(_ITERATIONS if eps == epsilon else _COARSE):
      before = f
      f = -damping * eps * (_lse((g - cost) / eps + log_columns, -1) - total)
      g = -damping * eps * (_lse((f - cost) / eps + log_rows, -2) - total)
      if (np.abs(f - before) <= _TOLERANCE * eps).all():
        break
  return np.exp((f + g - cost) / eps + log_rows + log_columns - total)


def _schedule(epsilon: float, cost: np.ndarray) -> list[float]:
  """Returns decreasing regularisations, the last one as asked."""
  values, largest = [epsilon], float(np.ptp(cost))
  while values[-1] * _RATIO < largest:
    values.append(values[-1] * _RATIO)
  return values[::-1]


def _lse(x: np.ndarray, axis: int) -> np.ndarray:
  """Returns the logarithm of a sum of exponentials, without overflow."""
  top = x.max(axis, keepdims=True)
  return top + np.log(np.exp(x - top).sum(axis, keepdims=True))
