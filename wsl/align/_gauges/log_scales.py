"""Balanced scales: a convex problem in their logarithms."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from wsl.align import _symmetry
from wsl.align._gauges import elements

_STEPS = 60
_LARGEST = 2.0  # of a Newton step, in logarithms
_TOLERANCE = 1e-14  # of a Newton step
_RIDGE = 1e-8  # added to the Hessian, as a fraction of its diagonal


class Term(NamedTuple):
  """Squared norms ``m[i, j, ...]`` and the logarithms that scale them.

  Attributes:
    mass: the squared norms, over the indices of the scales that act on them.
    scales: for each act the name of the scale, the axes of ``mass`` that index
      it, and the power.
  """

  mass: np.ndarray
  scales: tuple[tuple[str, tuple[int, ...], float], ...]


def update(
  pieces: Sequence[Any],
  symmetry: _symmetry.Symmetry,
  names: Sequence[str],
  tables: dict[str, np.ndarray],
) -> float:
  r"""Balances all scales, given the linear maps.

  .. math:: \min_t \sum_k m_k \exp(2 \langle p_k, t \rangle)
    - 2 \langle c, t \rangle

  with t the logarithms, k the entries and p_k their powers, by Newton's method.
  The constant c of a unit is the sum of its distinct powers, which is zero if
  they balance; else the minimum without it would be at infinity.

  Args:
    pieces: the blocks of a model, see ``balance.Piece``.
    symmetry: its symmetry.
    names: the scales and phases.
    tables: of all actions; those of ``names`` are replaced.

  Returns:
    The largest change of the logarithm of an entry.
  """
  shapes = {name: _shape(symmetry, name) for name in names}
  terms = _terms(pieces, symmetry, names, tables)
  constant = _constants(terms, shapes)
  start = {name: np.log(_modulus(symmetry, name, tables)) for name in names}
  t = _newton(terms, constant, start)
  for name in names:
    size = np.exp(t[name])
    phase = symmetry.action[name].kind == 'phase'
    tables[name] = np.stack([size, 0 * size], -1) if phase else size
  return _change(terms, {name: t[name] - start[name] for name in names})


def _shape(symmetry: _symmetry.Symmetry, name: str) -> tuple[int, ...]:
  """Returns the shape of the logarithms of an action."""
  shape = symmetry.action_shape(name)
  return shape[:-1] if symmetry.action[name].kind == 'phase' else shape


def _modulus(
  symmetry: _symmetry.Symmetry, name: str, tables: dict[str, np.ndarray]
) -> np.ndarray:
  """Returns the scales of an action."""
  table = tables[name]
  if symmetry.action[name].kind == 'phase':
    return np.hypot(table[..., 0], table[..., 1])
  return table


def _terms(
  pieces: Sequence[Any],
  symmetry: _symmetry.Symmetry,
  names: Sequence[str],
  tables: dict[str, Any],
) -> list[Term]:
  """Sums the squares of all blocks over the indices of no scale."""
  chosen = {*names}
  found: dict[Any, np.ndarray] = {}
  duals = elements.with_duals(symmetry, tables, np)
  for piece in pieces:
    mine = [a for a in piece.acts if a.name in chosen]
    if not mine:
      continue
    block = piece.block.astype(np.float64)
    maps = tuple(
      a for a in piece.acts if a.kind == 'linear' and a.name in tables
    )
    block = elements.act(block, piece.factors, maps, duals, np)
    axes = [elements.axes_of(a, piece.factors) for a in mine]
    held = sorted({i for places in axes for i in places})
    rest = tuple(i for i in range(block.ndim) if i not in held)
    mass = np.square(block).sum(rest)
    scales = tuple(
      (a.name, tuple(map(held.index, places)), a.power)
      for a, places in zip(mine, axes)
    )
    key = mass.shape, scales
    found[key] = found[key] + mass if key in found else mass
  return [Term(mass, scales) for (_, scales), mass in found.items()]


def _exponent(term: Term, t: dict[str, np.ndarray]) -> Any:
  """Returns the sum of powers times logarithms, for each entry of a term."""
  total: Any = 0.0
  for name, axes, power in term.scales:
    x = np.transpose(t[name], np.argsort(axes))
    rest = [i for i in range(term.mass.ndim) if i not in axes]
    total = total + power * np.expand_dims(x, rest)
  return total


def _change(terms: Sequence[Term], step: dict[str, np.ndarray]) -> float:
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


def _constants(
  terms: Sequence[Term], shapes: dict[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Returns for each unit the sum of the distinct powers of its leaves."""
  # Powers of actions with one shape and index are those of one unit, a vector.
  found = {name: np.zeros(shape) for name, shape in shapes.items()}
  classes: dict[Any, np.ndarray] = {}
  for term in terms:
    by_axes: dict[tuple[int, ...], dict[str, float]] = {}
    for name, axes, power in term.scales:
      powers = by_axes.setdefault(axes, {})
      powers[name] = powers.get(name, 0.0) + power
    for axes, powers in by_axes.items():
      rest = tuple(i for i in range(term.mass.ndim) if i not in axes)
      alive = (term.mass.sum(rest) > 0).transpose(np.argsort(np.argsort(axes)))
      key = tuple(sorted(powers.items()))
      classes[key] = classes.get(key, False) | alive
  for powers, alive in classes.items():
    for name, power in powers:
      found[name] += power * alive
  return found


def _newton(
  terms: Sequence[Term],
  constant: dict[str, np.ndarray],
  start: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Minimises the convex function; conjugate gradients solve each step."""
  from scipy import sparse
  from scipy.sparse import linalg

  sizes = [x.size for x in start.values()]
  cuts = np.cumsum(sizes)[:-1]
  flat = lambda t: np.concatenate([x.ravel() for x in t.values()])
  whole = lambda v: {
    name: x.reshape(start[name].shape)
    for name, x in zip(start, np.split(v, cuts))
  }
  masses = lambda t: [
    term.mass * np.exp(2 * _exponent(term, t)) for term in terms
  ]
  value = lambda t, m: (
    sum(float(x.sum()) for x in m) - 2 * float(flat(constant) @ flat(t))
  )
  t = start
  mass = masses(t)
  for _ in range(_STEPS):
    gradient = flat(_reduced(terms, mass, start)) - flat(constant)

    diagonal = flat(_diagonal(terms, mass, start))

    def product(
      v: np.ndarray,
      mass: list[np.ndarray] = mass,
      ridge: np.ndarray = _RIDGE * diagonal,
    ) -> np.ndarray:
      # Half of the Hessian: the sum over entries of 2 m p p^T. Scales of heads
      # and of frequencies share a factor: without a ridge it is singular, and
      # rounding in the gradient would make conjugate gradients diverge.
      parts = [
        2 * m * _exponent(term, whole(v)) for term, m in zip(terms, mass)
      ]
      return flat(_reduced(terms, parts, start)) + ridge * v

    precondition = 1 / np.where(diagonal > 0, diagonal, 1)
    n = len(gradient)
    step, _ = linalg.cg(
      linalg.LinearOperator((n, n), product, dtype=np.float64),
      -gradient,
      rtol=1e-8,
      maxiter=10 * n,
      M=sparse.diags_array(precondition),
    )
    size = _change(terms, whole(step))
    step = whole(step * min(1, _LARGEST / max(size, _LARGEST)))
    before, length = value(t, mass), 1.0
    while True:
      new = {name: t[name] + length * step[name] for name in t}
      mass = masses(new)
      # Near the minimum the value no longer decreases by rounding.
      if size * length < 1e-6 or value(new, mass) <= before:
        break
      length /= 2
    t = new
    if size * length < _TOLERANCE:
      break
  return t


def _diagonal(
  terms: Sequence[Term], mass: Sequence[np.ndarray], like: dict[str, Any]
) -> dict[str, np.ndarray]:
  """Returns the diagonal of half of the Hessian."""
  squared = [
    Term(t.mass, tuple((n, axes, p * p) for n, axes, p in t.scales))
    for t in terms
  ]
  return _reduced(squared, [2 * m for m in mass], like)
