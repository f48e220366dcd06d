"""Signs and scales that larger gauges contain."""

from collections.abc import Mapping, Sequence

from wsl.align import _symmetry


def contained(
  small: _symmetry.Action,
  actions: Sequence[_symmetry.Action],
  outer: Mapping[str, Sequence[str]],
) -> bool:
  """Returns True if a sign or scale is a product of elements of other gauges.

  Signs and scales of a factor are linear maps, and signs are rotations. A sign
  or scale of a head is one of all units of the head, and of all its phases.
  """
  if small.kind not in ('sign', 'scale'):
    return False
  covered: set[_symmetry.Power] = set()
  for large in actions:
    kind, factor, powers = large.kind, large.factor, large.powers
    if small.factor == factor and kind != 'phase':
      signs_only = kind == 'rotation' and small.kind == 'sign'
      if kind == 'linear' or (signs_only and not large.ones):
        return True
    within = small.factor in (large.over if kind == 'phase' else outer[factor])
    kinds = ('linear', small.kind, *(() if large.unit else ('phase',)))
    signs = kind == 'phase' and small.kind == 'sign'
    if within and (kind in kinds or signs):
      ratios = {p: _ratio(powers, p) for p in small.powers}
      ratios = {p: x for p, x in ratios.items() if x is not None}
      same = len({*ratios.values()}) == 1 or small.kind == 'sign'
      if len(ratios) == len(powers) and same:
        covered |= ratios.keys()
  return covered == {*small.powers}


def _ratio(
  inner: tuple[_symmetry.Power, ...], whole: _symmetry.Power
) -> float | None:
  """Returns the quotient of the powers of a head and of its units.

  Both are in one segment of an axis, or on different axes of a leaf.
  """
  here = [p for p in inner if p.leaf == whole.leaf]
  near = [p for p in here if p[1:3] == whole[1:3]]
  elsewhere = [p for p in here if p.axis != whole.axis]
  found = near or (elsewhere if len(elsewhere) == 1 else [])
  return whole.power / found[0].power if found else None
