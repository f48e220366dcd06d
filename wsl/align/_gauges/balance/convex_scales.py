"""A convex function of logarithms of scales, and its minimum."""

from collections.abc import Sequence
import itertools
from typing import Any, NamedTuple

import numpy as np

from wsl.align import _blocks

_STEPS = 60
_TURNS = 3
_TOLERANCE = 1e-22  # decrease by the last step, relative
_ROUNDED = 1e-6  # steps below this change the value by rounding
_FIRST, _RIDGE = 0.1, 1e-8  # damping at first and at least
_DENSE = 3000  # scales; the Hessian of more is not formed
_ITERATIONS = 200  # of conjugate gradients


class Term(NamedTuple):
  """Squared norms ``m[i, j, ...]`` and the logarithms that scale them.

  Attributes:
    mass: the squared norms, over the indices of the scales that act on them.
    scales: for each act the name of the scale, the axes of ``mass`` that index
      it, and the power.
  """

  mass: np.ndarray
  scales: tuple[tuple[str, tuple[int, ...], float], ...]


def minimise(
  terms: Sequence[Term],
  constant: dict[str, np.ndarray],
  start: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Minimises the convex function by damped Newton steps.

  The Hessian plus a fraction of its diagonal is inverted: a large one first,
  where the curvature of some scales is small, as of units of little norm.
  """
  flat = lambda t: np.concatenate([x.ravel() for x in t.values()])
  masses = lambda t: [
    term.mass * np.exp(2 * _exponent(term, t)) for term in terms
  ]
  value = lambda t, m: (
    sum(float(x.sum()) for x in m) - 2 * float(flat(constant) @ flat(t))
  )
  t = _in_turn(terms, constant, start)
  mass, damping, steepest = masses(t), _FIRST, np.inf
  for _ in range(_STEPS):
    gradient = flat(_reduced(terms, mass, start)) - flat(constant)
    step = _solve(terms, mass, start, gradient, damping)
    size = change(terms, step)
    new = {name: t[name] - step[name] for name in t}
    moved = masses(new)
    # Near the minimum the value no longer decreases by rounding.
    if size >= _ROUNDED and not value(new, moved) <= value(t, mass):
      damping = max(damping, _RIDGE) * 100
      continue
    t, mass, damping = new, moved, max(damping / 100, _RIDGE)
    # Half of the decrement is the distance to the minimal value. Its rounding
    # error ends the steps where the curvature of some scales is small.
    decrement = float(gradient @ flat(step))
    before, steepest = steepest, float(np.abs(gradient).max(initial=0))
    small = size < _ROUNDED and steepest > before / 2
    if decrement <= _TOLERANCE * value(t, mass) or small:
      break
  return t


def _in_turn(
  terms: Sequence[Term],
  constant: dict[str, np.ndarray],
  start: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Minimises over the units of one scale after the other, a few times.

  Each unit is a problem in one number: the sum of p m_p exp(2 p s) over the
  powers p is its constant.
  """
  t = dict(start)
  for _ in range(_TURNS):
    for name in t:
      powers: dict[float, np.ndarray] = {}
      for term in terms:
        acts = [x for x in term.scales if x[0] == name]
        if len(acts) == 1:
          ((_, _, power),) = acts
          mass = term.mass * np.exp(2 * _exponent(term, t))
          one = term._replace(scales=((name, acts[0][1], 1.0),))
          sums = _reduced([one], [mass], {name: t[name]})[name]
          powers[power] = powers.get(power, 0.0) + sums
      t[name] = t[name] + _one_number(powers, constant[name])
  return t


def _one_number(
  powers: dict[float, np.ndarray], constant: np.ndarray
) -> np.ndarray:
  """Solves the sum of p m_p exp(2 p s) = c for each unit, by limited steps."""
  s = np.zeros(constant.shape)
  for _ in range(_STEPS):
    parts = [(p, m * np.exp(2 * p * s)) for p, m in powers.items()]
    slope = sum((p * m for p, m in parts), 0 * s) - constant
    curvature = sum((2 * p * p * m for p, m in parts), 0 * s)
    step = np.clip(slope / np.where(curvature > 0, curvature, np.inf), -1, 1)
    s = s - step
    if np.abs(step).max(initial=0) < _ROUNDED:
      break
  return s


def _solve(
  terms: Sequence[Term],
  mass: Sequence[np.ndarray],
  like: dict[str, np.ndarray],
  gradient: np.ndarray,
  damping: float,
) -> dict[str, np.ndarray]:
  """Solves with half of the damped Hessian, the sum of 2 m p p^T.

  Scales of heads and of frequencies share a factor: without damping it is
  singular.
  """
  from scipy import linalg, sparse
  from scipy.sparse import linalg as iterative

  n = len(gradient)
  cuts = np.cumsum([x.size for x in like.values()])[:-1]
  whole = lambda v: {
    name: x.reshape(like[name].shape)
    for name, x in zip(like, np.split(v, cuts))
  }
  flat = lambda t: np.concatenate([x.ravel() for x in t.values()])
  diagonal = flat(_diagonal(terms, mass, like))
  diagonal = np.where(diagonal > 0, diagonal, 1)
  if n <= _DENSE:
    matrix = _hessian(terms, mass, like) + np.diag(damping * diagonal)
    matrix[np.diag_indices(n)] += np.where(matrix.diagonal() > 0, 0, 1)
    return whole(linalg.solve(matrix, gradient, assume_a='pos'))

  def product(v: np.ndarray) -> np.ndarray:
    rates = [_exponent(term, whole(v)) for term in terms]
    parts = [2 * m * rate for m, rate in zip(mass, rates)]
    return flat(_reduced(terms, parts, like)) + damping * diagonal * v

  step, _ = iterative.cg(
    iterative.LinearOperator((n, n), product, dtype=np.float64),
    gradient,
    rtol=1e-8,
    maxiter=_ITERATIONS,
    M=sparse.diags_array(1 / diagonal),
  )
  return whole(step)


def _hessian(
  terms: Sequence[Term],
  mass: Sequence[np.ndarray],
  like: dict[str, np.ndarray],
) -> np.ndarray:
  """Returns half of the Hessian, ``[n, n]``."""
  starts = np.cumsum([0, *(x.size for x in like.values())])
  n = starts[-1]
  index = {
    name: first + np.arange(x.size).reshape(x.shape)
    for (name, x), first in zip(like.items(), starts)
  }
  found = np.zeros(n * n)
  for term, m in zip(terms, mass):
    # The position of each entry's logarithm, for each scale that acts on it.
    at = lambda name, axes, ndim=m.ndim: _blocks.spread(
      index[name], [*axes], ndim, np
    )
    places = [
      (np.broadcast_to(at(name, axes), m.shape), power)
      for name, axes, power in term.scales
    ]
    for (a, p), (b, q) in itertools.product(places, repeat=2):
      weights = (2 * p * q * m).ravel()
      found += np.bincount((a * n + b).ravel(), weights, n * n)
  return found.reshape(n, n)


def _diagonal(
  terms: Sequence[Term], mass: Sequence[np.ndarray], like: dict[str, Any]
) -> dict[str, np.ndarray]:
  """Returns the diagonal of half of the Hessian."""
  squared = [
    Term(t.mass, tuple((n, axes, p * p) for n, axes, p in t.scales))
    for t in terms
  ]
  return _reduced(squared, [2 * m for m in mass], like)


def _exponent(term: Term, t: dict[str, np.ndarray]) -> Any:
  """Returns the sum of powers times logarithms, for each entry of a term."""
  total: Any = 0.0
  for name, axes, power in term.scales:
    total = total + power * _blocks.spread(t[name], [*axes], term.mass.ndim, np)
  return total


def change(terms: Sequence[Term], step: dict[str, np.ndarray]) -> float:
  """Returns the largest change of the logarithm of an entry.

  It is zero where changes of several scales cancel.
  """
  parts = (np.abs(_exponent(term, step)).max(initial=0) for term in terms)
  return float(max(parts, default=0.0))


def _reduced(
  terms: Sequence[Term], values: Sequence[np.ndarray], like: dict[str, Any]
) -> dict[str, np.ndarray]:
  """Returns for each scale the sum of powers times values."""
  total = {name: np.zeros(np.shape(x)) for name, x in like.items()}
  for term, value in zip(terms, values):
    for name, axes, power in term.scales:
      rest = tuple(i for i in range(value.ndim) if i not in axes)
      part = value.sum(rest)
      # Axis k of a table is the one of this rank among those of the entries.
      total[name] += power * part.transpose(np.argsort(np.argsort(axes)))
  return total
