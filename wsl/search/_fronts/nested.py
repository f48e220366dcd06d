"""Merges of many experts, two at a time, by Pareto fronts of two groups."""

import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import types
from wsl.search import _points
from wsl.search._fronts import map_front as map_front_lib
from wsl.search._fronts import pareto, surrogate


class Nested(NamedTuple):
  """The result of ``map_nested``.

  Attributes:
    point: the coefficients of all experts, ``[T]``.
    losses: of the merge, ``[T]``, as evaluated.
    pairs: the two groups of experts that each step merged.
    fronts: of each step; its coefficients are those of the two groups, its
      losses their weighted means.
    evaluations: the number of points that were evaluated.
  """

  point: np.ndarray
  losses: np.ndarray
  pairs: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
  fronts: tuple[pareto.Front, ...]
  evaluations: int


class _Group(NamedTuple):
  """Merged experts: their positions, coefficients ``[T]`` and mean loss."""

  experts: tuple[int, ...]
  point: np.ndarray
  loss: float


def map_nested(
  losses: pareto.Losses,
  size: int,
  *,
  preferences: Any = 1.0,
  evaluations: int = 20,
  link: surrogate.Link = 'identity',
  lower: float = 0.0,
  upper: float = 1.0,
  generations: int = 25,
  key: types.PRNGKey,
) -> Nested:
  r"""Merges T experts in pairs, each at a point of its Pareto front (MAP).

  .. math:: c = a\, c_G + b\, c_H, \qquad (a, b) = \operatorname{argmin}_{
    \text{front}} \; p_G\, \hat\ell_G + p_H\, \hat\ell_H, \qquad
    \ell_G = \frac{1}{p_G} \sum_{m \in G} p_m\, \ell_m

  The two groups of experts of the closest losses are merged by ``map_front`` in
  two coefficients, until one group is left. Evaluations grow as T and
  not as the :math:`(T + 1)(T + 2) / 2` unknowns of one surrogate; the result is
  one point for given preferences, not a front.

  Args:
    losses: maps coefficients ``[B, T]`` of all experts to the loss of each task
      ``[B, T]``, task m that of expert m; lower is better.
    size: T, ``>= 2``.
    preferences: p, the weight of each task, ``> 0``: one number or ``[T]``.
    evaluations: of each pair, ``>= 6``; one more measures its merge, and T
      measure the experts.
    link: see ``fit_surrogate``.
    lower: of the two coefficients of a pair.
    upper: of them.
    generations: of NSGA-III, ``>= 1``.
    key: of samples and evolution.

  Returns:
    A ``Nested``, of T + (T - 1)(evaluations + 1) evaluations.

  Raises:
    ImportError: if the package ``pymoo`` is not installed.
    ValueError: if an argument is out of range, ``losses`` does not return T
      columns, or the loss of an expert or merge is not finite.

  Example:
    >>> import jax
    >>> losses = lambda c: (c - 1) ** 2  # an expert helps its own task only
    >>> found = map_nested(losses, 3, key=jax.random.key(0))
    >>> bool((found.losses < 0.01).all()), found.evaluations
    (True, 45)

  Reference:
    Li et al., "MAP: Low-compute Model Merging with Amortized Pareto Fronts via
    Quadratic Approximation", 2024, arXiv:2406.07529.

  Differs from the official code in the samples, see ``map_front``, and in the
  groups, whose losses are there one surrogate for each task.
  """
  name = 'map_nested'
  size = _points.check_count(name, 'size', size, 2)
  weights = np.asarray(preferences, np.float64)
  if (
    weights.shape not in ((), (size,))
    or not ((weights > 0) & np.isfinite(weights)).all()
  ):
    raise ValueError(
      f'{name}: preferences={preferences!r}: give a finite number > 0, or one '
      f'for each of {size} tasks'
    )
  weights = np.broadcast_to(weights, size)
  evaluated = 0

  def measure(points: np.ndarray) -> np.ndarray:
    nonlocal evaluated
    found = pareto.evaluated(name, losses, points)
    if found.shape[1] != size:
      raise ValueError(
        f'{name}: losses returned {found.shape[1]} columns for {size} experts: '
        'return the loss of each task'
      )
    evaluated += len(points)
    return found

  eye = np.eye(size)
  groups = [
    _group((i,), eye[i], found, weights) for i, found in enumerate(measure(eye))
  ]
  pairs, fronts = [], []
  for step_key in jax.random.split(key, size - 1):
    a, b = _closest(groups)
    both = np.stack([a.point, b.point])

    def of_pair(c: np.ndarray, pair: Any = (a, b), both: Any = both) -> Any:
      found = measure(c @ both)
      return np.stack([_mean(found, weights, x.experts) for x in pair], axis=1)

    front = map_front_lib.map_front(
      of_pair,
      2,
      evaluations=evaluations,
      link=link,
      lower=lower,
      upper=upper,
      generations=generations,
      key=step_key,
    )
    shares = [weights[list(x.experts)].sum() for x in (a, b)]
    point = front.points[np.argmin(front.losses @ shares)] @ both
    found = measure(point[None])[0]
    merged = _group((*a.experts, *b.experts), point, found, weights)
    groups = [x for x in groups if x is not a and x is not b] + [merged]
    pairs.append((a.experts, b.experts))
    fronts.append(front)
  return Nested(point, found, tuple(pairs), tuple(fronts), evaluated)


def _group(
  experts: tuple[int, ...],
  point: np.ndarray,
  losses: np.ndarray,
  weights: np.ndarray,
) -> _Group:
  """Returns a group of experts, with the mean loss of its tasks."""
  loss = float(_mean(losses[None], weights, experts)[0])
  if not np.isfinite(loss):
    raise ValueError(f'map_nested: a loss of experts {experts} is not finite')
  return _Group(experts, point, loss)


def _mean(
  losses: np.ndarray, weights: np.ndarray, tasks: tuple[int, ...]
) -> np.ndarray:
  """Returns the weighted mean of the losses ``[B, T]`` of some tasks."""
  own = list(tasks)
  return losses[:, own] @ weights[own] / weights[own].sum()


def _closest(groups: list[_Group]) -> tuple[_Group, _Group]:
  """Returns the two groups whose losses differ least."""
  pairs = itertools.combinations(groups, 2)
  return min(pairs, key=lambda pair: abs(pair[0].loss - pair[1].loss))
