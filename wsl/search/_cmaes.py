"""Covariance matrix adaptation, by the library of its authors."""

from typing import Any

import numpy as np

from wsl import tree, types
from wsl.search import _points


def cmaes(
  loss: _points.Loss,
  start: Any,
  *,
  sigma: float,
  lower: Any = -np.inf,
  upper: Any = np.inf,
  evaluations: int,
  population: int | None = None,
  diagonal: bool = False,
  key: types.PRNGKey,
) -> _points.Search:
  r"""Minimises a black box by covariance matrix adaptation (CMA-ES).

  .. math:: x_i \sim N(m, \sigma^2 C), \qquad
    m \leftarrow \textstyle\sum_{i \le \mu} w_i\, x_{i:\lambda}

  with step size and covariance adapted along the path of the mean. The steps
  are those of the package ``cma``, with its defaults.

  Args:
    loss: maps points ``[B, n]`` to losses ``[B]``, lower is better. B is the
      population: a generation is one call, such as one
      ``mesh.map_candidates``. NaN ranks last.
    start: m, the first mean, ``[n]``.
    sigma: the first standard deviation, ``> 0``.
    lower: of the box that points are kept in, one number or ``[n]``.
    upper: of the box, one number or ``[n]``.
    evaluations: a bound for the number of points, ``>= population``; whole
      generations are evaluated.
    population: of a generation, ``>= 2``; 4 + 3 log n by default.
    diagonal: whether C stays diagonal, for thousands of coordinates: memory and
      time of a point are O(n), not O(n^2).
    key: of the samples.

  Returns:
    A ``Search``.

  Raises:
    ImportError: if the package ``cma`` is not installed.
    ValueError: if an argument is wrong, or ``loss`` does not return one number
      for each point.
    FloatingPointError: if no loss is finite.

  Example:
    >>> import jax
    >>> loss = lambda x: ((x - 0.3) ** 2).sum(1)
    >>> found = cmaes(loss, [0.0, 0.0], sigma=0.2, evaluations=200,
    ...               key=jax.random.key(0))
    >>> bool(found.loss < 1e-3)
    True

  Reference:
    Hansen and Ostermeier, "Completely Derandomized Self-Adaptation in Evolution
    Strategies", 2001, Evolutionary Computation 9(2).
  """
  name = 'cmaes'
  start = np.asarray(start, np.float64)
  if start.ndim != 1 or not start.size or not np.isfinite(start).all():
    raise ValueError(
      f'{name}: start has shape {start.shape}: give finite numbers [n]'
    )
  tree.check_scalars(name, sigma=sigma)
  if not 0 < sigma < np.inf:
    raise ValueError(f'{name}: sigma={sigma} is not a finite number > 0')
  low, high = _points.box(name, lower, upper, start.size)
  if not ((low <= start) & (start <= high)).all():
    raise ValueError(f'{name}: start is outside of lower .. upper')
  count = population or 4 + int(3 * np.log(start.size))
  count = _points.check_count(name, 'population', count, 2)
  evaluations = _points.check_count(name, 'evaluations', evaluations, count)
  options = {
    'bounds': [low.tolist(), high.tolist()],
    'popsize': count,
    'CMA_diagonal': diagonal,
    'verbose': -9,  # neither prints nor writes files
    'seed': np.nan,  # numpy's global generator is left alone
    'randn': _normal(key),
  }
  strategy = _points.optional('cma', name).CMAEvolutionStrategy(
    start, sigma, options
  )
  points, losses = [], []
  for _ in range(evaluations // count):
    asked = np.asarray(strategy.ask())
    found = _points.evaluated(name, loss, asked)
    points.append(asked)
    losses.append(found)
    strategy.tell(list(asked), _ranked(found).tolist())
  return _points.best(name, np.concatenate(points), np.concatenate(losses))


def _normal(key: types.PRNGKey) -> Any:
  """Returns a source of normal numbers in the form that ``cma`` takes."""
  generator = _points.generator(key)
  return lambda *shape: generator.standard_normal(shape)


def _ranked(losses: np.ndarray) -> np.ndarray:
  """Returns losses in which those that are not finite are the largest."""
  finite = np.isfinite(losses)
  worst = losses[finite].max() if finite.any() else 0.0
  return np.where(finite, losses, worst + 1 + abs(worst))
