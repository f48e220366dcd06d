"""The gauges of a traced function: where each acts, and how."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from wsl.align import _symmetry
from wsl.align._find import axis_facts, axis_tree
from wsl.align._gauges import layout
from wsl.align._gauges.linear import rules as linear_rules
from wsl.align._gauges.linear import types as linear_types
from wsl.align._gauges.powers import charges as charges_lib
from wsl.align._gauges.powers import rules

_Found: TypeAlias = tuple[str, str, tuple[_symmetry.Power, ...], bool]
_PASSES = 16  # over the steps, until the states in loops no longer change


def find(
  kinds: Collection[str],
  facts: axis_facts.Facts,
  leaves: Sequence[str],
  names: Mapping[axis_tree.Axis, str],
  outer: Mapping[str, Sequence[str]],
) -> tuple[list[_symmetry.Action], dict[str, str]]:
  """Finds all actions of a function, without those that larger ones contain.

  Args:
    kinds: the kinds to find.
    facts: the equations.
    leaves: the names of the leaves, in the order of ``facts.leaves``.
    names: the name of the factor of each atom.
    outer: the outer factors of each factor, by name.

  Returns:
    The actions, and why no linear map or rotation acts on other free factors.
  """
  linear, limits = _linear(facts, leaves, names)
  found = [*_diagonal(facts, leaves, names), *linear]
  found = [one for one in found if one[0] in kinds]
  seen: dict[str, int] = {}
  actions = []
  for kind, factor, powers, ones in found:
    one = kind, factor, powers, ones
    if any(_contains(other, one, outer) for other in found):
      continue
    key = f'{kind} {factor}'
    k = seen[key] = seen.get(key, 0) + 1
    name = key if k == 1 else f'{key} #{k}'
    actions.append(_symmetry.Action(name, kind, factor, powers, ones))
  return actions, limits


def _contains(
  large: _Found, small: _Found, outer: Mapping[str, Sequence[str]]
) -> bool:
  """Returns True if one gauge is a subgroup of a larger one.

  Signs and scales of a factor are linear maps, and signs are rotations. A sign
  or scale of a head is one of all units of the head.
  """
  kind, factor, powers, _ = large
  if small[0] not in ('sign', 'scale'):
    return False
  if small[1] == factor:
    signs_only = kind == 'rotation' and small[0] == 'sign'
    return kind == 'linear' or (signs_only and not large[3])
  if small[1] not in outer[factor] or kind not in ('linear', small[0]):
    return False
  ratios = [_ratio(powers, p) for p in small[2]]
  same = len(powers) == len(small[2]) and None not in ratios
  return same and (len(set(ratios)) == 1 or small[0] == 'sign')


def _ratio(
  inner: tuple[_symmetry.Power, ...], whole: _symmetry.Power
) -> float | None:
  """Returns the quotient of the powers of a head and of its units.

  Both are in one segment of an axis, or on different axes of a leaf.
  """
  here = [p for p in inner if p.leaf == whole.leaf]
  near = [p for p in here if p[1:3] == whole[1:3]]
  apart = [p for p in here if p.axis != whole.axis]
  found = near or (apart if len(apart) == 1 else [])
  return whole.power / found[0].power if found else None


def _diagonal(
  facts: axis_facts.Facts,
  leaves: Sequence[str],
  names: Mapping[axis_tree.Axis, str],
) -> list[_Found]:
  """Returns the scales and signs of each unit."""
  c = charges_lib.Charges()
  for step in facts.steps:
    rules.apply(c, step)
  for value in facts.fixed:
    c.pin(value)
  # Free powers are those of vectors, such as gains, and then of the leaves that
  # are used first: others, which read them, follow.
  first = {
    v.number: -i
    for i, step in enumerate(reversed(facts.steps))
    for v in step.args
  }
  order = lambda v: (len(v.axes) != 1, first.get(v.number, 0))
  leaves_first = sorted(facts.leaves, key=order)
  spots = [s for v in leaves_first for s in layout.spots(c.blocks(v))]
  # What the function does not use may be used for other inputs.
  wanted = [
    s
    for s in spots
    if not s.atom.index_mixed and s.atom.pin_reason != axis_tree.UNUSED
  ]
  place = {v.number: name for v, name in zip(facts.leaves, leaves)}
  rank = {name: i for i, name in enumerate(leaves)}
  found: list[_Found] = []
  for kind, domain in zip(('scale', 'sign'), c.domains):
    for solution in domain.solutions(wanted):
      on: dict[layout.Spot, float] = solution  # type: ignore[assignment]
      factor = names[next(iter(on)).atom]
      powers = [_power(place, s, float(x)) for s, x in on.items()]
      powers.sort(key=lambda p: (rank[p.leaf], p[1:4]))
      found.append((kind, factor, tuple(powers), False))
  return found


def _linear(
  facts: axis_facts.Facts,
  leaves: Sequence[str],
  names: Mapping[axis_tree.Axis, str],
) -> tuple[list[_Found], dict[str, str]]:
  """Returns the rotations and linear maps of axes, and why there are none."""
  c = linear_types.Types()
  for value in facts.leaves:
    for spot in layout.spots(c.blocks(value)):
      c.states[spot] = linear_types.VECTOR
  for _ in range(_PASSES):
    before = dict(c.states)
    c.restart()
    for step in facts.steps:
      c.read(step, linear_rules.rule_of(step))
    if c.states == before:
      break
  else:
    return [], {}
  c.fail_varying()
  for value in facts.fixed:
    c.pin(value)
  place = {v.number: name for v, name in zip(facts.leaves, leaves)}
  parts: dict[layout.Spot, list[_symmetry.Power]] = {}
  for value in facts.leaves:
    for spot in layout.spots(c.blocks(value)):
      free = not spot.atom.pin_reason and not spot.atom.index_mixed
      if free and spot.atom not in c.failed:
        root, colour = c.root(spot)
        both = spot.atom in c.mixed | c.ones
        power = -1.0 if colour and not both else 1.0
        parts.setdefault(root, []).append(_power(place, spot, power))
  reasons = {
    names[atom]: reason
    for atom, reason in c.failed.items()
    if atom in names and not atom.pin_reason
  }
  found: list[_Found] = [
    (
      'rotation' if root.atom in c.mixed | c.ones else 'linear',
      names[root.atom],
      tuple(powers),
      root.atom in c.ones,
    )
    for root, powers in parts.items()
  ]
  return found, reasons


def _power(
  place: Mapping[int, str], spot: layout.Spot, power: float
) -> _symmetry.Power:
  """Names an occurrence in a leaf."""
  number, _, axis, segment, factor = spot.key
  return _symmetry.Power(place[number], axis, segment, factor, power)
