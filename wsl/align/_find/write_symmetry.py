"""Converts axes to a ``Symmetry``: factors with names, leaves with axes."""

import itertools
import math

from wsl.align import _symmetry
from wsl.align._find import axis_facts, axis_tree, nesting, refinement

_UNROLL = 256  # the largest number of segments of a product that is expanded


def from_axes(
  leaves: dict[str, axis_facts.Axes], facts: axis_facts.Facts
) -> tuple[_symmetry.Symmetry, dict[axis_tree.Axis, str]]:
  """Names the atoms of all leaves and writes each axis as sums of products.

  Args:
    leaves: the axes of each leaf, by name.
    facts: the constraints collected from the equations.

  Returns:
    The symmetry, and the name of the factor of each atom.
  """
  # Removing a sum ties axes, which may create sums elsewhere: repeat until no
  # axis changes. Each round pins or factorizes an atom, so the loop ends.
  changed = True
  while changed:
    changed = any([_flatten(axis) for axes in leaves.values() for axis in axes])
  written = {n: [_write(axis) for axis in axes] for n, axes in leaves.items()}
  outer = nesting.outer_atoms(list(written.values()), facts)
  names: dict[axis_tree.Axis, str] = {}
  # An atom is named by its first occurrence in the leaves.
  for name, rows in written.items():
    for i, blocks in enumerate(rows):
      atoms = list(itertools.chain(*blocks))
      for k, atom in enumerate(atoms):
        place = f'{name}:{i}' if len(atoms) == 1 else f'{name}:{i}.{k}'
        names.setdefault(atom, place)
  factors = tuple(
    _symmetry.Factor(
      name,
      atom.size,
      atom.pin_reason,
      tuple(names[a] for a in outer.get(atom, ())),
    )
    for atom, name in names.items()
  )
  label = lambda block: tuple(names[atom] for atom in block)
  labels = tuple(
    (name, tuple(tuple(map(label, blocks)) for blocks in rows))
    for name, rows in written.items()
  )
  return _symmetry.Symmetry(factors, labels), names


def _flatten(axis: axis_tree.Axis) -> bool:
  """Removes one sum inside a product from an axis; returns whether it had one.

  A ``Symmetry`` has only sums of products. A sum inside a product, such as
  ``heads * (q + k)`` of interleaved queries and keys, becomes a product with
  tied parts if the sizes have a common divisor, and is pinned otherwise.
  """
  parts = axis_tree.segments(axis)
  if len(parts) > 1 and all(part.size == 1 for part in parts):
    _pin_whole(axis, axis_tree.ONE_BY_ONE)
    return True
  for part in parts:
    inner = _inner_sum(part)
    if inner is not None:
      pieces = axis_tree.segments(inner)
      # A sum of n indices becomes [n / g, g], where g divides all its segments:
      # chunks of g indices are tied to each other, and their order is pinned.
      sizes = [piece.size for piece in pieces]
      if set(sizes) == {1}:
        _pin_whole(inner, axis_tree.ONE_BY_ONE)
      elif refinement.factorize(inner, inner.size // math.gcd(*sizes)) is None:
        _pin_whole(inner, 'parts inside a product that cannot be distinguished')
      return True
  return False


def _inner_sum(part: axis_tree.Axis) -> axis_tree.Axis | None:
  """Returns a sum inside a product, unless the product can be expanded.

  ``3 * (a + b)`` with a pinned major factor expands to a + b + a + b + a + b.
  """
  factors = axis_tree.factors(part)
  at = next((i for i, factor in enumerate(factors) if factor.is_sum), None)
  if at is None:
    return None
  before, pieces = factors[:at], axis_tree.segments(factors[at])
  unrolled = math.prod(factor.size for factor in before) * len(pieces)
  if not all(map(axis_tree.pinned, before)) or unrolled > _UNROLL:
    return factors[at]
  inner = (
    _inner_sum(axis_tree.product([p, *factors[at + 1 :]])) for p in pieces
  )
  return next((x for x in inner if x is not None), None)


def _write(axis: axis_tree.Axis) -> list[tuple[axis_tree.Axis, ...]]:
  """Writes an axis as segments; a pinned factor before a sum is expanded."""
  out: list[tuple[axis_tree.Axis, ...]] = []
  for part in axis_tree.segments(axis):
    factors = axis_tree.factors(part)
    at = next((i for i, factor in enumerate(factors) if factor.is_sum), None)
    if at is None:
      out.append(tuple(factors))
      continue
    inner = _write(axis_tree.product(factors[at:]))
    out += inner * math.prod(factor.size for factor in factors[:at])
  return out


def _pin_whole(axis: axis_tree.Axis, reason: str) -> None:
  """Replaces an axis by one pinned atom."""
  reasons = [
    atom.pin_reason for atom in axis_tree.atoms(axis) if atom.pin_reason
  ]
  axis = axis_tree.find(axis)
  axis_tree.pin(axis, reason)
  axis.parts, axis.is_sum = (), False
  axis.pin_reason = reasons[0] if reasons else reason
