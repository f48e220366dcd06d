r"""Entropic transport by Sinkhorn's scalings, stabilised by potentials.

.. math:: \min_T \langle C, T \rangle + \epsilon\,
  \mathrm{KL}(T \,\|\, \mu \nu^\top / n) + \lambda\, \mathrm{KL}(T 1 \,\|\, \mu)
  + \lambda\, \mathrm{KL}(T^\top 1 \,\|\, \nu)

with :math:`\mathrm{KL}(a \| b) = \sum a \log (a / b) - a + b`. For an infinite
lambda both marginals are exact.
"""

import numpy as np

_STEPS = 20  # of the scalings, between two evaluations of the exponentials
_ROUNDS = 500  # of such steps at the last regularisation
_COARSE = 3  # rounds at each of the others
_TOLERANCE = 1e-11  # of the logarithms of the scalings
_RATIO = 4  # of successive regularisations
_FLOOR = 1e-200  # of masses, against division by zero


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
    T ``[..., n, m]``. If it is balanced, its columns have their masses exactly,
    and its rows up to the error after 10,000 scalings at most.

  Reference: Chizat et al., "Scaling Algorithms for Unbalanced Transport
    Problems", 2016, arXiv:1607.05816; Schmitzer, "Stabilized Sparse Scaling
    Algorithms for Entropy Regularized Transport Problems", 2016,
    arXiv:1610.06519 (the potentials).
  """
  # T = (mu nu^T / n) exp((f + g - C) / eps), and the rows are optimal at f =
  # -lambda log(T 1 / mu). From f_0 and its T = K, with f = f_0 + eps log u and
  # T 1 = u K v, this is u = (mu / K v)^a exp(-f_0 / (lambda + eps)), where a =
  # lambda / (lambda + eps). Exponentials are needed once for many such steps.
  log_masses = np.log(rows)[..., None] + np.log(columns)[..., None, :]
  log_masses -= np.log(rows.sum(-1))[..., None, None]
  mu, nu = rows[..., None], columns[..., None]
  f = cost.min(-1, keepdims=True)
  g = np.zeros_like(nu)
  for eps in _schedule(epsilon, cost):
    power = 1.0 if np.isinf(strength) else strength / (strength + eps)
    for _ in range(_ROUNDS if eps == epsilon else _COARSE):
      kernel = np.exp((f + g.swapaxes(-1, -2) - cost) / eps + log_masses)
      left, right = (np.exp(-x / (strength + eps)) for x in (f, g))
      u, v = np.ones_like(f), np.ones_like(g)
      for _ in range(_STEPS):
        before = u
        u = (mu / np.maximum(kernel @ v, _FLOOR)) ** power * left
        v = kernel.swapaxes(-1, -2) @ u
        v = (nu / np.maximum(v, _FLOOR)) ** power * right
      f, g = f + eps * np.log(u), g + eps * np.log(v)
      if (np.abs(np.log(u / before)) <= _TOLERANCE).all():
        break
  return np.exp((f + g.swapaxes(-1, -2) - cost) / epsilon + log_masses)


def _schedule(epsilon: float, cost: np.ndarray) -> list[float]:
  """Returns decreasing regularisations, the last one as asked."""
  values, largest = [epsilon], float(np.ptp(cost))
  while values[-1] * _RATIO < largest:
    values.append(values[-1] * _RATIO)
  return values[::-1]
