"""Balanced scales: a convex problem in their logarithms."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsl.align import _symmetry
from wsl.align._gauges import elements
from wsl.align._gauges.balance import convex_scales
from wsl.align._gauges.balance import pieces as pieces_lib


def update(
  pieces: Sequence[pieces_lib.Piece],
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
    pieces: the blocks of a model, see ``pieces.Piece``.
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
  t = convex_scales.minimise(terms, constant, start)
  for name in names:
    size = np.exp(t[name])
    phase = symmetry.action[name].kind == 'phase'
    tables[name] = np.stack([size, 0 * size], -1) if phase else size
  return convex_scales.change(
    terms, {name: t[name] - start[name] for name in names}
  )


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
  pieces: Sequence[pieces_lib.Piece],
  symmetry: _symmetry.Symmetry,
  names: Sequence[str],
  tables: dict[str, Any],
) -> list[convex_scales.Term]:
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
    # Scales do not mix entries: only sums of squares over the axes without one
    # enter the norm.
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
  return [
    convex_scales.Term(mass, scales) for (_, scales), mass in found.items()
  ]


def _constants(
  terms: Sequence[convex_scales.Term], shapes: dict[str, tuple[int, ...]]
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
