"""Multi-objective Bayesian optimisation of merges, with variance screening."""

from typing import Any

import numpy as np

from wsl import types
from wsl.search import _points
from wsl.search._fronts import gaussian, improvement, pareto

_RAW = 512  # random points among which the acquisition function is maximised
_RESTARTS = 3  # of L-BFGS-B, from the best of them
_ELITE = 5  # evaluated points that mutants are made of


def mm_mo(
  losses: pareto.Losses,
  size: int,
  *,
  lower: Any = 0.0,
  upper: Any = 1.0,
  start: int = 10,
  rounds: int = 4,
  proposals: int = 10,
  batch: int = 5,
  crossover: float | None = 0.5,
  reference: Any = None,
  key: types.PRNGKey,
) -> pareto.Front:
  r"""Approximates a Pareto front by Bayesian optimisation (MM-MO).

  .. math:: x_j = \operatorname{argmax}_x \operatorname{E} \operatorname{HVI}(x
    \mid x_{<j}), \qquad \text{keep the smallest} \quad
    \sum_m \sigma_m^{-2}(x_j)

  Each round fits a Gaussian process to each loss. One after another, proposals
  maximise the expected growth of the hypervolume. Each is crossed with a mutant
  :math:`a + (b - c)/2` of three of the five best points. The most uncertain
  proposals, of least Fisher information, are evaluated. The merge is a function
  of yours. In the paper, x are the densities and weights of DARE-TIES, and the
  last loss is the L1 norm of the merged task vector::

    def one(x):
      kept = merge.dare(tau, rate=1 - x[::2], key=key)
      merged = merge.ties(kept, density=1.0, reduce='sum', weights=x[1::2])
      return jnp.append(errors(deltas.apply(base, merged)), norm(merged))

    losses = lambda x: mesh.map_candidates(one, x, mesh=candidates)

  Args:
    losses: maps points ``[B, n]`` to M losses, ``[B, M]``, lower is better; M
      is 2, 3 or 4. Each round is one call, such as one
      ``mesh.map_candidates``. A row with NaN is a failure.
    size: n, the number of coordinates, ``>= 1``.
    lower: of the box, one number or ``[n]``.
    upper: of the box, one number or ``[n]``.
    start: random points that are evaluated first, ``>= 5``.
    rounds: ``>= 0``; the evaluations are ``start + rounds * batch``.
    proposals: of a round, ``>= batch``.
    batch: proposals that are evaluated, ``>= 1``; with ``proposals == batch``
      nothing is screened, and with no ``crossover`` either the search is plain
      Bayesian optimisation by expected hypervolume improvement.
    crossover: the probability that a coordinate is the mutant's, 0 .. 1, in at
      least one coordinate; None leaves the proposals as they are.
    reference: of the hypervolume, ``[M]``; by default the largest losses of the
      first points and a tenth of their range more.
    key: of all draws.

  Returns:
    A ``Front`` of evaluated points; its losses are as evaluated, its surrogate
    is the mean of the last processes.

  Raises:
    ImportError: if the package ``scikit-learn`` is not installed.
    ValueError: if an argument is out of range, ``losses`` returns another
      shape, or fewer than five of the first points have finite losses.

  Example:
    >>> import jax
    >>> from wsl import search
    >>> losses = lambda x: np.stack([(x**2).sum(1), ((x - 1)**2).sum(1)], 1)
    >>> found = mm_mo(losses, 2, start=6, rounds=2, proposals=3, batch=3,
    ...               crossover=None, key=jax.random.key(0))
    >>> len(found.samples), len(found.points) > 3
    (12, True)

  Reference:
    Li et al., "It's Morphing Time: Unleashing the Potential of Multiple LLMs
    via Multi-Objective Optimization", 2025, IEEE Transactions on Evolutionary
    Computation, doi:10.1109/TEVC.2025.3613937.

  Differs from the official code in the expected improvement, exact here and the
  mean of 128 samples there, where later proposals take the predicted mean of
  earlier ones as observed; in the reference point, which is there in the units
  of the losses while the processes have standardised ones; and in the five best
  points, those of the least sum of all standardised losses.
  """
  name = 'mm_mo'
  size = _points.check_count(name, 'size', size, 1)
  start = _points.check_count(name, 'start', start, _ELITE)
  rounds = _points.check_count(name, 'rounds', rounds, 0)
  batch = _points.check_count(name, 'batch', batch, 1)
  proposals = _points.check_count(name, 'proposals', proposals, batch)
  if crossover is not None and not 0 <= crossover <= 1:
    raise ValueError(f'{name}: crossover={crossover} is not in 0 .. 1')
  low, high = _points.finite_box(name, lower, upper, size)
  _points.optional('sklearn.gaussian_process', name)

  generator = _points.generator(key)
  cube = generator.uniform(size=(start, size))
  found = pareto.evaluated(name, losses, _points.from_cube(cube, low, high))
  if found.shape[1] > 4:
    raise ValueError(
      f'{name}: losses returned {found.shape[1]} columns: the expected '
      'hypervolume is computed for at most 4'
    )
  good = np.isfinite(found).all(1)
  if good.sum() < _ELITE:
    raise ValueError(
      f'{name}: {good.sum()} of {start} first points have finite losses: '
      f'{_ELITE} are needed'
    )
  reference = _reference(reference, found[good])
  model = gaussian.fit(cube[good], found[good], low, high)
  for _ in range(rounds):
    good = np.isfinite(found).all(1)
    asked = _propose(model, cube[good], proposals, reference, generator)
    if crossover is not None:
      elite = _elite(cube[good], found[good])
      asked = _crossed(asked, elite, crossover, generator)
    # The last digits differ between machines: round, so that an interrupted
    # search asks for the points of its journal.
    asked = _screened(model, np.round(asked, 4), batch)
    new = pareto.evaluated(name, losses, _points.from_cube(asked, low, high))
    cube, found = np.concatenate([cube, asked]), np.concatenate([found, new])
    good = np.isfinite(found).all(1)
    model = gaussian.fit(cube[good], found[good], low, high)
  points = _points.from_cube(cube, low, high)
  kept = pareto.front_order(found)
  return pareto.Front(points[kept], found[kept], points, found, model)


def _reference(given: Any, losses: np.ndarray) -> np.ndarray:
  """Returns the given reference point, or one beyond the worst losses."""
  worst, best = losses.max(0), losses.min(0)
  found = worst + 0.1 * (worst - best) if given is None else given
  found = np.asarray(found, np.float64)
  if found.shape != worst.shape or not np.isfinite(found).all():
    raise ValueError(
      f'mm_mo: reference has shape {found.shape}: give one finite number for '
      f'each of {len(worst)} losses'
    )
  return found


def _propose(
  model: gaussian.Processes,
  cube: np.ndarray,
  count: int,
  reference: np.ndarray,
  generator: np.random.Generator,
) -> np.ndarray:
  """Returns points of largest expected improvement, each given the others."""
  front, found = gaussian.predict(model, cube)[0], []
  for _ in range(count):
    front = front[pareto.non_dominated(front)]
    space = improvement.cells(front, reference)

    def gain(x: np.ndarray, model: Any = model, space: Any = space) -> Any:
      mean, deviation = gaussian.predict(model, x)
      return improvement.expected_improvement(mean, deviation, space)

    point = _maximise(gain, generator.uniform(size=(_RAW, cube.shape[1])))
    found.append(point)
    front = np.concatenate([front, gaussian.predict(model, point[None])[0]])
    model = gaussian.condition(model, point)
  return np.stack(found)


def _maximise(gain: Any, raw: np.ndarray) -> np.ndarray:
  """Returns a point of the unit cube of large gain, by L-BFGS-B."""
  from scipy import optimize

  values, size, step = gain(raw), raw.shape[1], 1e-5
  order = np.argsort(-values)[:_RESTARTS]
  best, reached = raw[order[0]], values[order[0]]
  if reached <= 0:
    return best  # no point can improve, in the numbers of the machine
  inwards = lambda x: np.where(x < 0.5, step, -step)

  def negative(x: np.ndarray) -> tuple[float, np.ndarray]:
    steps = inwards(x)
    at = gain(np.concatenate([x[None], x + np.diag(steps)])) / reached
    return -at[0], -(at[1:] - at[0]) / steps

  for i in order:
    found = optimize.minimize(
      negative, raw[i], jac=True, method='L-BFGS-B',
      bounds=[(0, 1)] * size, options={'maxiter': 30},
    )  # fmt: skip
    value = gain(found.x[None])[0]
    if value > reached:
      best, reached = found.x, value
  return best


def _elite(cube: np.ndarray, losses: np.ndarray) -> np.ndarray:
  """Returns the points of the least sum of standardised losses."""
  scale = losses.std(0)
  sums = (losses / np.where(scale > 0, scale, 1)).sum(1)
  return cube[np.argsort(sums, kind='stable')[:_ELITE]]


def _crossed(
  points: np.ndarray,
  elite: np.ndarray,
  rate: float,
  generator: np.random.Generator,
) -> np.ndarray:
  """Crosses points with mutants of the elite, as in differential evolution."""
  found = []
  for point in points:
    a, b, c = elite[generator.choice(len(elite), 3, replace=False)]
    mutant = np.clip(a + 0.5 * (b - c), 0, 1)
    taken = generator.random(point.size) < rate
    taken[generator.integers(point.size)] |= not taken.any()
    found.append(np.where(taken, mutant, point))
  return np.stack(found)


def _screened(
  model: gaussian.Processes, points: np.ndarray, count: int
) -> np.ndarray:
  """Keeps the points of least Fisher information, the most uncertain ones."""
  _, deviation = gaussian.predict(model, points)
  information = ((model.scale / deviation) ** 2).sum(1)
  return points[np.sort(np.argsort(information, kind='stable')[:count])]
