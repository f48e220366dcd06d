"""Directions of coefficients in which a surrogate is worst."""

import itertools

import numpy as np

_TEMPERATURE = 0.07
_PARTS = 30  # subsets of the errors of a sector, each of 80 % of them


def propose(
  predicted: np.ndarray,
  points: np.ndarray,
  losses: np.ndarray,
  count: int,
  generator: np.random.Generator,
) -> np.ndarray:
  r"""Draws points in sectors of large errors of the surrogate.

  .. math:: p_{s} \propto \exp(u_s / 0.07), \qquad
    u_s = \bar e_s + \tfrac{1}{2} \operatorname{std}(\bar e_s)

  for the squared errors e of one loss, in units of its variance, at the points
  of a sector s: a product of intervals of the angles of the coefficients. The
  losses take turns.

  Args:
    predicted: by the surrogate, ``[K, M]``.
    points: in the unit cube, ``[K, n]``.
    losses: of them, ``[K, M]``.
    count: of new points.
    generator: of all draws.

  Returns:
    New points, ``[count, n]``, of radius 0.2 .. 0.8.
  """
  size, tasks = points.shape[1], losses.shape[1]
  bins = 4 if size < 4 else 2
  width = np.pi / 2 / bins
  sectors = np.array([*itertools.product(range(bins), repeat=size - 1)])
  places = np.clip(_angles(points) // width, 0, bins - 1)
  inside = (places[:, None] == sectors).all(2)  # [K, sectors]
  variance = losses.var(0)
  errors = (predicted - losses) ** 2 / np.where(variance > 0, variance, 1)
  chances = [_chances(x, inside, generator) for x in errors.T]
  found = []
  for i in range(count):
    sector = sectors[generator.choice(len(sectors), p=chances[i % tasks])]
    angles = width * (sector + generator.random(size - 1))
    found.append(generator.uniform(0.2, 0.8) * _direction(angles))
  return np.stack(found)


def _chances(
  errors: np.ndarray, inside: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
  """Returns the probability of each sector from the errors of one loss."""
  scores = np.full(inside.shape[1], np.nan)
  for s, members in enumerate(inside.T):
    own = errors[members]
    if own.size:
      size = own.size - own.size // 5
      means = [
        generator.choice(own, size, replace=False).mean() for _ in range(_PARTS)
      ]
      scores[s] = own.mean() + 0.5 * np.std(means)
  # A sector without a point is as uncertain as the worst one.
  scores = np.where(np.isnan(scores), np.nanmax(scores), scores)
  weights = np.exp((scores - scores.max()) / _TEMPERATURE)
  return weights / weights.sum()


def _angles(points: np.ndarray) -> np.ndarray:
  """Returns the angles of points in spherical coordinates, ``[K, n - 1]``."""
  squares = np.cumsum(points[:, ::-1] ** 2, axis=1)[:, ::-1]
  return np.arctan2(np.sqrt(squares[:, 1:]), points[:, :-1])


def _direction(angles: np.ndarray) -> np.ndarray:
  """Returns the unit vector of n - 1 angles."""
  sines = np.concatenate([[1.0], np.cumprod(np.sin(angles))])
  return sines * np.concatenate([np.cos(angles), [1.0]])
