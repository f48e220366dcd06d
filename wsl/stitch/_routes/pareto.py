"""The networks of a family that no other beats at their cost."""

import numpy as np

from wsl import types


def pareto(costs: types.ArrayLike, scores: types.ArrayLike) -> np.ndarray:
  r"""Finds what is on the front of cost against score.

  .. math:: \{i : \nexists j \;\; c_j \le c_i, \; s_j \ge s_i,
    \; (c_j, s_j) \ne (c_i, s_i)\}

  Args:
    costs: of each network, ``[R]``: FLOPs, parameters, seconds.
    scores: of each network, ``[R]``; higher is better.

  Returns:
    Numbers of the networks on the front, by rising cost, ``[F]``. Networks of
    one cost and one score are on it together.

  Raises:
    ValueError: if the two differ in length, or one is not a number.

  Example:
    >>> pareto([1.0, 2.0, 3.0, 4.0], [0.5, 0.8, 0.7, 0.9]).tolist()
    [0, 1, 3]
  """
  c, s = np.asarray(costs, np.float64), np.asarray(scores, np.float64)
  if c.ndim != 1 or c.shape != s.shape or not np.isfinite(c + s).all():
    raise ValueError(
      f'pareto: costs {list(c.shape)} and scores {list(s.shape)}: expected two '
      'lists of one length, of finite numbers'
    )
  cheaper = (c[None, :] <= c[:, None]) & (s[None, :] > s[:, None])
  as_good = (c[None, :] < c[:, None]) & (s[None, :] >= s[:, None])
  front = np.flatnonzero(~(cheaper | as_good).any(1))
  return front[np.argsort(c[front], kind='stable')]
