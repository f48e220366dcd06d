"""Writes what was found as a symmetry: factors with names, leaves with axes."""

import itertools
import math

from wsl.align import _axes, _depend, _symmetry, _trace

_UNROLL = 256  # segments that an axis may have where pinned factors lead
_ONES = 'its parts are used one by one'


def assemble(
  leaves: dict[str, _trace.Axes], trace: _trace.Trace
) -> tuple[_symmetry.Symmetry, dict[_axes.Axis, str]]:
  """Writes what was found as factors and axes with names."""
  changed = True
  while changed:
    changed = any([_flatten(axis) for axes in leaves.values() for axis in axes])
  written = {n: [_write(axis) for axis in axes] for n, axes in leaves.items()}
  outer = _depend.outer(list(written.values()), trace)
  names: dict[_axes.Axis, str] = {}
  for name, rows in written.items():
    for i, blocks in enumerate(rows):
      atoms = list(itertools.chain(*blocks))
      for k, atom in enumerate(atoms):
        place = f'{name}:{i}' if len(atoms) == 1 else f'{name}:{i}.{k}'
        names.setdefault(atom, place)
  factors = tuple(
    _symmetry.Factor(
      name, atom.size, atom.why, tuple(names[a] for a in outer.get(atom, ()))
    )
    for atom, name in names.items()
  )
  label = lambda block: tuple(names[atom] for atom in block)
  labels = tuple(
    (name, tuple(tuple(map(label, blocks)) for blocks in rows))
    for name, rows in written.items()
  )
  return _symmetry.Symmetry(factors, labels), names


def _flatten(axis: _axes.Axis) -> bool:
  """Brings an axis closer to a sum of products of atoms, if it is none.

  A sum inside a product, as of queries and keys inside each head, is made a
  product, where its parts can be tied, or pinned.
  """
  parts = _axes.segments(axis)
  if len(parts) > 1 and all(part.size == 1 for part in parts):
    _pin_whole(axis, _ONES)
    return True
  for part in parts:
    inner = _inner_sum(part)
    if inner is not None:
      pieces = _axes.segments(inner)
      sizes = [piece.size for piece in pieces]
      if set(sizes) == {1}:
        _pin_whole(inner, _ONES)
      elif _axes.split(inner, inner.size // math.gcd(*sizes)) is None:
        _pin_whole(inner, 'parts inside a product that cannot be told apart')
      return True
  return False


def _inner_sum(part: _axes.Axis) -> _axes.Axis | None:
  """Returns a sum inside a product, if it cannot be written as segments."""
  factors = _axes.factors(part)
  at = next((i for i, factor in enumerate(factors) if factor.is_sum), None)
  if at is None:
    return None
  before, pieces = factors[:at], _axes.segments(factors[at])
  unrolled = math.prod(factor.size for factor in before) * len(pieces)
  if not all(map(_axes.pinned, before)) or unrolled > _UNROLL:
    return factors[at]
  inner = (_inner_sum(_axes.product([p, *factors[at + 1 :]])) for p in pieces)
  return next((x for x in inner if x is not None), None)


def _write(axis: _axes.Axis) -> list[tuple[_axes.Axis, ...]]:
  """Writes an axis as segments; pinned factors of sums index by index."""
  out: list[tuple[_axes.Axis, ...]] = []
  for part in _axes.segments(axis):
    factors = _axes.factors(part)
    at = next((i for i, factor in enumerate(factors) if factor.is_sum), None)
    if at is None:
      out.append(tuple(factors))
      continue
    inner = _write(_axes.product(factors[at:]))
    out += inner * math.prod(factor.size for factor in factors[:at])
  return out


def _pin_whole(axis: _axes.Axis, why: str) -> None:
  """Makes an axis one pinned atom."""
  reasons = [atom.why for atom in _axes.atoms(axis) if atom.why]
  axis = _axes.find(axis)
  _axes.pin(axis, why)
  axis.parts, axis.is_sum = (), False
  axis.why = reasons[0] if reasons else why
