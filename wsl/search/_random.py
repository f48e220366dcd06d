"""Random search."""

from typing import Any

import numpy as np

from wsl import types
from wsl.search import _points


def random_search(
  loss: _points.Loss,
  size: int,
  *,
  lower: Any = 0.0,
  upper: Any = 1.0,
  evaluations: int,
  batch: int = 32,
  key: types.PRNGKey,
) -> _points.Search:
  r"""Evaluates uniformly random points of a box.

  .. math:: x_i \sim U[\mathrm{lower}, \mathrm{upper}]^n, \qquad
    x^* = \operatorname{argmin}_i L(x_i)

  The baseline of every other search at an equal number of evaluations.

  Args:
    loss: maps points ``[B, n]`` to losses ``[B]``, lower is better; for one
      compiled call for each batch, ``mesh.map_candidates``. NaN is a failure.
    size: n, the number of coordinates, ``>= 1``.
    lower: of the box, one number or ``[n]``.
    upper: of the box, one number or ``[n]``.
    evaluations: the number of points, ``>= 1``.
    batch: the most points that ``loss`` is given at once, ``>= 1``.
    key: of the points.

  Returns:
    A ``Search``.

  Raises:
    ValueError: if a count or a bound is wrong, or ``loss`` does not return one
      number for each point.
    FloatingPointError: if no loss is finite.

  Example:
    >>> import jax
    >>> loss = lambda x: ((x - 0.3) ** 2).sum(1)
    >>> found = random_search(loss, 1, evaluations=99, key=jax.random.key(0))
    >>> bool(abs(found.point[0] - 0.3) < 0.05)
    True

  Reference:
    Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", 2012,
    Journal of Machine Learning Research 13.
  """
  name = 'random_search'
  size = _points.check_count(name, 'size', size, 1)
  evaluations = _points.check_count(name, 'evaluations', evaluations, 1)
  batch = _points.check_count(name, 'batch', batch, 1)
  low, high = _points.finite_box(name, lower, upper, size)
  points = _points.generator(key).uniform(low, high, (evaluations, size))
  losses = [
    _points.evaluated(name, loss, points[i : i + batch])
    for i in range(0, evaluations, batch)
  ]
  return _points.best(name, points, np.concatenate(losses))
