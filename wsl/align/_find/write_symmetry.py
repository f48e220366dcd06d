"""Converts axes to a ``Symmetry``: factors with names, leaves with axes."""

from collections.abc import Iterator
import itertools
import math

from wsl.align import _blocks, _symmetry
from wsl.align._find import axis_facts, axis_tree, nesting, refinement


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
  flat = lambda axis: _blocks.flatten(axis_tree.written(axis, expand=False))[0]
  outer = nesting.outer_atoms(
    [[*map(flat, axes)] for axes in leaves.values()], facts
  )
  for each in itertools.chain(*outer.values()):
    each.is_outer = True
  runs: list[_symmetry.Interleaved] = []
  written: dict[str, list[nesting.Blocks]] = {}
  for name, axes in leaves.items():
    nested = [_blocks.flatten(axis_tree.written(axis)) for axis in axes]
    written[name] = [segments for segments, _ in nested]
    runs += [
      _symmetry.Interleaved(name, i, *span)
      for i, (_, spans) in enumerate(nested)
      for span in spans
    ]
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
  found = _symmetry.Symmetry(factors, labels, interleaved=tuple(runs))
  return found, names


def _flatten(axis: axis_tree.Axis) -> bool:
  """Removes one sum of an axis that is not written; returns if there was one.

  Not written are sums of single indices, which are pinned, and more segments
  than can be distinguished. Then a sum inside a product becomes a product with
  tied parts if the sizes have a common divisor, and is pinned otherwise.
  """
  parts = axis_tree.segments(axis)
  if len(parts) > 1 and all(part.size == 1 for part in parts):
    _pin_whole(axis, axis_tree.ONE_BY_ONE)
    return True
  many = len(_blocks.flatten(axis_tree.written(axis))[0]) > axis_tree.UNROLLED
  for part in parts:
    for inner in _inner_sums(part):
      pieces = axis_tree.segments(inner)
      sizes = [piece.size for piece in pieces]
      if set(sizes) == {1}:
        _pin_whole(inner, axis_tree.ONE_BY_ONE)
        return True
      if many:
        # A sum of n indices becomes [n / g, g], where g divides all segments:
        # chunks of g indices are tied to each other, and their order is pinned.
        count = inner.size // math.gcd(*sizes)
        if refinement.factorize(inner, count) is None:
          reason = 'parts inside a product that cannot be distinguished'
          _pin_whole(inner, reason)
        return True
  return False


def _inner_sums(part: axis_tree.Axis) -> Iterator[axis_tree.Axis]:
  """Yields the sums inside products, unless the product is expanded.

  ``3 * (a + b)`` with a pinned major factor expands to a + b + a + b + a + b.
  """
  factors = axis_tree.factors(part)
  at = next((i for i, factor in enumerate(factors) if factor.is_sum), None)
  if at is None:
    return
  pieces = axis_tree.segments(factors[at])
  unrolled = math.prod(f.size for f in factors[:at]) * len(pieces)
  free = not all(map(axis_tree.pinned, factors[:at]))
  if free or unrolled > axis_tree.UNROLLED:
    yield factors[at]
  for piece in pieces:
    yield from _inner_sums(axis_tree.product([piece, *factors[at + 1 :]]))


def _pin_whole(axis: axis_tree.Axis, reason: str) -> None:
  """Replaces an axis by one pinned atom."""
  reasons = [
    atom.pin_reason for atom in axis_tree.atoms(axis) if atom.pin_reason
  ]
  axis = axis_tree.find(axis)
  axis_tree.pin(axis, reason)
  axis.parts, axis.is_sum = (), False
  axis.pin_reason = reasons[0] if reasons else reason
