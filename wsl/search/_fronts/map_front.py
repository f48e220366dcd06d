"""Amortised Pareto fronts: evolution on a quadratic model of the losses."""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np

from wsl import types
from wsl.search import _points
from wsl.search._fronts import adaptive as adaptive_lib
from wsl.search._fronts import pareto, surrogate

_POPULATION = 100


def map_front(
  losses: pareto.Losses,
  size: int,
  *,
  evaluations: int | None = None,
  adaptive: Sequence[int] = (),
  link: surrogate.Link = 'identity',
  lower: Any = 0.0,
  upper: Any = 1.0,
  generations: int = 25,
  key: types.PRNGKey,
) -> pareto.Front:
  r"""Approximates the Pareto front of merges from a quadratic surrogate (MAP).

  .. math:: \hat\ell_m(c) = \mathrm{link}(c^\top A_m c + b_m^\top c + e_m),
    \qquad \text{front} = \min_{c}\, (\hat\ell_1(c), \dots, \hat\ell_M(c))

  K sampled coefficients are evaluated and the surrogate is fitted to them; the
  front is found on the surrogate by NSGA-III, without further evaluations: 100
  individuals, simulated binary crossover and polynomial mutation. The samples
  are in the competition too. With ``adaptive``, the paper's Bayesian variant,
  further points are drawn where the surrogate fits worst: the angles of the
  coefficients form sectors, 4 for each angle of up to three coefficients and 2
  for more, and those of large errors are more probable.

  Args:
    losses: maps coefficients ``[B, n]`` to the losses of M tasks, ``[B, M]``,
      lower is better; such as one ``mesh.map_candidates``. The first samples
      are one call, and each round is. A row with NaN is left out of the fit.
    size: n, the number of coefficients, one for each expert, ``>= 1``.
    evaluations: K, ``>= (n + 1)(n + 2) / 2``; twice that by default. The first
      are the experts and the equal weights; the others are uniform.
    adaptive: the numbers of further evaluations, round by round, such as
      ``(3, 3)``; the surrogate is fitted again after each.
    link: see ``fit_surrogate``.
    lower: of the box of samples and front, one number or ``[n]``.
    upper: of the box.
    generations: of NSGA-III, ``>= 1``.
    key: of samples and evolution.

  Returns:
    A ``Front``, ordered by the first loss.

  Raises:
    ImportError: if the package ``pymoo`` is not installed.
    ValueError: if an argument is out of range, there is only one loss, too many
      evaluations failed for the fit, or adaptive samples are asked for one
      coefficient.

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
  directions for two losses; here they are as many as the population. In the
  adaptive rounds, the errors of a loss are in units of its variance, sectors
  without samples are drawn as the worst one (there never), the subsets of a
  bootstrap are independent, and the last surrogate has all samples.
  """
  name = 'map_front'
  size = _points.check_count(name, 'size', size, 1)
  unknowns = (size + 1) * (size + 2) // 2
  count = 2 * unknowns if evaluations is None else evaluations
  count = _points.check_count(name, 'evaluations', count, unknowns)
  generations = _points.check_count(name, 'generations', generations, 1)
  counts = [_points.check_count(name, 'adaptive', x, 1) for x in adaptive]
  if counts and size < 2:
    raise ValueError(f'{name}: adaptive samples need two coefficients or more')
  low, high = _points.finite_box(name, lower, upper, size)
  generator = _points.generator(key)
  samples = _samples(generator, count, low, high)
  found = pareto.evaluated(name, losses, samples)
  fit = _fit(samples, found, link)
  for more in counts:
    good = np.isfinite(found).all(1)
    cube = (samples[good] - low) / (high - low)
    new = adaptive_lib.propose(
      fit(samples[good]), cube, found[good], more, generator
    )
    new = _points.from_cube(new, low, high)
    samples = np.concatenate([samples, new])
    found = np.concatenate([found, pareto.evaluated(name, losses, new)])
    fit = _fit(samples, found, link)
  good = np.isfinite(found).all(1)
  seed = int(generator.integers(2**31))
  evolved = _evolve(fit, samples[good], low, high, generations, seed)
  points = np.unique(np.concatenate([samples[good], evolved]), axis=0)
  values = fit(points)
  kept = pareto.front_order(values)
  return pareto.Front(points[kept], values[kept], samples, found, fit)


def _fit(
  samples: np.ndarray, losses: np.ndarray, link: surrogate.Link
) -> surrogate.Surrogate:
  """Fits the surrogate to the samples whose losses are finite."""
  good = np.isfinite(losses).all(1)
  return surrogate.fit_surrogate(samples[good], losses[good], link=link)


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
  fit: surrogate.Surrogate,
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
