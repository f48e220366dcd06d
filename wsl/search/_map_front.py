"""Amortised Pareto fronts: evolution on a quadratic model of the losses."""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import numpy as np

from wsl import types
from wsl.search import _pareto, _points, _surrogate

_POPULATION = 100


class Front(NamedTuple):
  """Coefficients that trade the losses of tasks against each other.

  Attributes:
    points: the coefficients of the front, ``[P, n]``; model i of the front is
      the merge with ``points[i]``.
    losses: what the surrogate predicts for them, ``[P, M]``.
    samples: the evaluated coefficients, ``[K, n]``.
    sampled: their losses, ``[K, M]``; NaN where an evaluation failed.
    surrogate: the fitted model.
  """

  points: np.ndarray
  losses: np.ndarray
  samples: np.ndarray
  sampled: np.ndarray
  surrogate: _surrogate.Surrogate


def map_front(
  losses: Callable[[np.ndarray], Any],
  size: int,
  *,
  evaluations: int | None = None,
  link: _surrogate.Link = 'identity',
  lower: Any = 0.0,
  upper: Any = 1.0,
  generations: int = 25,
  key: types.PRNGKey,
) -> Front:
  r"""Approximates the Pareto front of merges from a quadratic surrogate (MAP).

  .. math:: \hat\ell_m(c) = \mathrm{link}(c^\top A_m c + b_m^\top c + e_m),
    \qquad \text{front} = \min_{c}\, (\hat\ell_1(c), \dots, \hat\ell_M(c))

  K sampled coefficients are evaluated and the surrogate is fitted to them; the
  front is found on the surrogate by NSGA-III, without further evaluations: 100
  individuals, simulated binary crossover and polynomial mutation. The samples
  are in the competition too.

  Args:
    losses: maps coefficients ``[B, n]`` to the losses of M tasks, ``[B, M]``,
      lower is better; such as one ``mesh.map_candidates``. All samples are one
      call. A row with NaN is left out of the fit.
    size: n, the number of coefficients, one for each expert, ``>= 1``.
    evaluations: K, ``>= (n + 1)(n + 2) / 2``; twice that by default. The first
      are the experts and the equal weights; the others are uniform.
    link: see ``fit_surrogate``.
    lower: of the box of samples and front, one number or ``[n]``.
    upper: of the box.
    generations: of NSGA-III, ``>= 1``.
    key: of samples and evolution.

  Returns:
    A ``Front``, ordered by the first loss.

  Raises:
    ImportError: if the package ``pymoo`` is not installed.
    ValueError: if an argument is out of range, there is only one loss, or too
      many evaluations failed for the fit.

  Example:
    >>> import jax
    >>> losses = lambda c: np.stack([(c[:, 0] - 1) ** 2, c[:, 0] ** 2], 1)
    >>> front = map_front(losses, 1, key=jax.random.key(0))
    >>> bool((front.losses[0] < 0.01).any() and len(front.points) > 10)
    True

  Reference:
    Li et al., "MAP: Low-compute Model Merging with Amortized Pareto Fronts via
    Quadratic Approximation", 2024, arXiv:2406.07529.

  Differs from the official code, which searches [-3, 3], far outside of its
  samples in [0, 1], draws samples of four kinds, and has five reference
  directions for two losses; here they are as many as the population.
  """
  name = 'map_front'
  size = _points.check_count(name, 'size', size, 1)
  unknowns = (size + 1) * (size + 2) // 2
  count = 2 * unknowns if evaluations is None else evaluations
  count = _points.check_count(name, 'evaluations', count, unknowns)
  generations = _points.check_count(name, 'generations', generations, 1)
  low, high = _points.box(name, lower, upper, size)
  if not np.isfinite([low, high]).all():
    raise ValueError(f'{name}: lower and upper must be finite')
  generator = _points.generator(key)
  samples = _samples(generator, count, low, high)
  found = np.asarray(losses(samples), np.float64)
  if found.ndim != 2 or len(found) != count or found.shape[1] < 2:
    raise ValueError(
      f'{name}: losses returned shape {found.shape} for {count} points: return '
      '[B, M], two losses or more'
    )
  good = np.isfinite(found).all(1)
  fit = _surrogate.fit_surrogate(samples[good], found[good], link=link)
  seed = int(generator.integers(2**31))
  evolved = _evolve(fit, samples[good], low, high, generations, seed)
  points = np.unique(np.concatenate([samples[good], evolved]), axis=0)
  values = fit(points)
  kept = np.flatnonzero(_pareto.non_dominated(values))
  kept = kept[np.argsort(values[kept, 0], kind='stable')]
  return Front(points[kept], values[kept], samples, found, fit)


def _samples(
  generator: np.random.Generator, count: int, low: Any, high: Any
) -> np.ndarray:
  """Returns the experts, the equal weights, and uniform points, in the box."""
  size = len(low)
  fixed = np.concatenate([np.eye(size), np.full((1, size), 1 / size)])
  fixed = np.clip(fixed[:count], low, high)
  uniform = generator.uniform(low, high, (count - len(fixed), size))
  return np.concatenate([fixed, uniform])


def _evolve(
  fit: _surrogate.Surrogate,
  start: np.ndarray,
  low: np.ndarray,
  high: np.ndarray,
  generations: int,
  seed: int,
) -> np.ndarray:
  """Returns the last population of NSGA-III on the surrogate."""
  get = lambda module: _points.optional(f'pymoo.{module}', 'map_front')
  tasks = fit.weights.shape[1]

  class Problem(get('core.problem').Problem):  # type: ignore[misc]
    """The losses of a population."""

    def _evaluate(self, x: np.ndarray, out: Any, *_: Any, **__: Any) -> None:
      out['F'] = fit(x)

  parts = 1
  while math.comb(parts + tasks, tasks - 1) <= _POPULATION:
    parts += 1
  algorithm = get('algorithms.moo.nsga3').NSGA3(
    get('util.ref_dirs').get_reference_directions(
      'das-dennis', tasks, n_partitions=parts
    ),
    pop_size=_POPULATION,
    sampling=start,
    crossover=get('operators.crossover.sbx').SBX(prob=0.7, eta=20),
    mutation=get('operators.mutation.pm').PM(prob=0.3, eta=20),
  )
  problem = Problem(n_var=len(low), n_obj=tasks, xl=low, xu=high)
  result = get('optimize').minimize(
    problem, algorithm, ('n_gen', generations), seed=seed, verbose=False
  )
  return np.asarray(result.pop.get('X'), np.float64)
