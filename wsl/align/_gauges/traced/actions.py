"""The gauges of a traced function: where each acts, and how."""

from collections.abc import Collection, Mapping, Sequence
import dataclasses

from wsl.align import _symmetry
from wsl.align._find import axis_facts, axis_tree
from wsl.align._gauges import layout
from wsl.align._gauges.linear import rules as linear_rules
from wsl.align._gauges.linear import types as linear_types
from wsl.align._gauges.phases import find as phases_lib
from wsl.align._gauges.powers import charges as charges_lib
from wsl.align._gauges.powers import rules
from wsl.align._gauges.traced import containment

_PASSES = 32  # over the steps, until the states in loops no longer change


def find(
  kinds: Collection[str],
  facts: axis_facts.Facts,
  leaves: Sequence[str],
  names: Mapping[axis_tree.Axis, str],
  symmetry: _symmetry.Symmetry,
) -> _symmetry.Symmetry:
  """Adds all actions of a function, without those that larger ones contain.

  Args:
    kinds: the kinds to find.
    facts: the equations.
    leaves: the names of the leaves, in the order of ``facts.leaves``.
    names: the name of the factor of each atom.
    symmetry: the permutations.

  Returns:
    The symmetry, with the reasons why no linear map, rotation or phase acts on
    other factors.
  """
  c = charges_lib.Charges()
  diagonal = _diagonal(c, facts, leaves, names)
  linear, limits = _linear(c.layouts, facts, leaves, names)
  found = [*diagonal, *linear]
  if 'phase' in kinds:
    phases = phases_lib.find(facts, symmetry)
    symmetry = phases.joined.symmetry
    moved = [_moved(one, phases.joined.places) for one in found]
    found = [*filter(None, moved), *phases.actions]
    limits = limits | phases.reasons
  found = [one for one in found if one.kind in kinds]
  outer = {factor.name: factor.outer for factor in symmetry.factors}
  larger: dict[str, list[_symmetry.Action]] = {}
  for one in found:
    for name in {one.factor, *outer[one.factor], *one.over}:
      larger.setdefault(name, []).append(one)
  seen: dict[str, int] = {}
  actions = []
  for one in found:
    if containment.contained(one, larger[one.factor], outer):
      continue
    key = f'{one.kind} {one.factor}'
    k = seen[key] = seen.get(key, 0) + 1
    actions.append(one._replace(name=key if k == 1 else f'{key} #{k}'))
  own = _diagonal_limits(c, kinds, facts, names, symmetry, actions)
  # An operation that prevents scales often prevents linear maps: list it once.
  limits |= {
    key: reason
    for key, reason in own.items()
    if key.startswith('sign') or limits.get(key.split(' ', 1)[1]) != reason
  }
  return dataclasses.replace(
    symmetry, actions=tuple(actions), limits=tuple(limits.items())
  )


def _diagonal_limits(
  c: charges_lib.Charges,
  kinds: Collection[str],
  facts: axis_facts.Facts,
  names: Mapping[axis_tree.Axis, str],
  symmetry: _symmetry.Symmetry,
  actions: Sequence[_symmetry.Action],
) -> dict[str, str]:
  """Returns why no scale or sign acts on the units of groups, by kind."""
  limits: dict[str, str] = {}
  for kind, domain in zip(('scale', 'sign'), c.domains):
    larger = (kind, 'linear', 'rotation')
    acting = {a.factor for a in actions if a.kind in larger}
    for value in facts.leaves if kind in kinds else ():
      for spot in layout.spots(c.blocks(value)):
        name = names.get(spot.atom, '')
        if name in symmetry.factor and not symmetry.factor[name].pinned:
          reason = domain.why(spot)
          if name not in acting and reason is not None:
            limits.setdefault(f'{kind} {name}', reason)
  return limits


def _moved(
  action: _symmetry.Action,
  places: Mapping[tuple[str, int, int], tuple[int, int]],
) -> _symmetry.Action | None:
  """Moves an action to joined segments; None if it differs on the halves."""
  found: dict[tuple[str, int, int, int], list[float]] = {}
  for p in action.powers:
    segment, at = places[p[:3]]
    place = p.leaf, p.axis, segment, p.factor + (0 <= at <= p.factor)
    count = 1 if at < 0 else 2
    found.setdefault(place, [count]).append(p.power)
  if any(len(x) != x[0] + 1 or len({*x[1:]}) > 1 for x in found.values()):
    return None
  powers = tuple(_symmetry.Power(*k, x[1]) for k, x in found.items())
  return action._replace(powers=powers)


def _diagonal(
  c: charges_lib.Charges,
  facts: axis_facts.Facts,
  leaves: Sequence[str],
  names: Mapping[axis_tree.Axis, str],
) -> list[_symmetry.Action]:
  """Returns the scales and signs of each unit."""
  for step in facts.steps:
    rules.apply(c, step)
  for domain in c.domains:
    domain.reason = 'an input or output of the function'
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
  # Atoms that the function does not use may be used for other inputs.
  wanted = [
    s
    for s in spots
    if not s.atom.index_mixed and s.atom.pin_reason != axis_tree.UNUSED
  ]
  place = {v.number: name for v, name in zip(facts.leaves, leaves)}
  rank = {name: i for i, name in enumerate(leaves)}
  found: list[_symmetry.Action] = []
  for kind, domain in zip(('scale', 'sign'), c.domains):
    for solution in domain.solutions(wanted):
      on: dict[layout.Spot, float] = solution  # type: ignore[assignment]
      factor = names[next(iter(on)).atom]
      powers = [_power(place, s, float(x)) for s, x in on.items()]
      powers.sort(key=lambda p: (rank[p.leaf], p[1:4]))
      found.append(_symmetry.Action('', kind, factor, tuple(powers)))
  return found


def _types(
  layouts: dict[int, layout.Layout], facts: axis_facts.Facts
) -> linear_types.Types | None:
  """Returns the types of all arrays; None if those in loops do not settle."""
  c = linear_types.Types(layouts)
  for value in facts.leaves:
    for spot in layout.spots(c.blocks(value)):
      c.states[spot] = linear_types.VECTOR
  steps = facts.steps
  for _ in range(_PASSES):
    before = dict(c.states)
    c.restart()
    for step in steps:
      c.read(step, linear_rules.rule_of(step))
    changed = {
      spot.key[0] for spot, x in c.states.items() if before.get(spot) != x
    }
    if not changed and steps is facts.steps:
      c.fail_varying()
      for value in facts.fixed:
        c.pin(value)
      return c
    # Steps of arrays whose states changed are read again; at last all of them.
    steps = [s for s in facts.steps if changed & _numbers(s)] or facts.steps
  return None


def _linear(
  layouts: dict[int, layout.Layout],
  facts: axis_facts.Facts,
  leaves: Sequence[str],
  names: Mapping[axis_tree.Axis, str],
) -> tuple[list[_symmetry.Action], dict[str, str]]:
  """Returns the rotations and linear maps of axes, and why there are none."""
  c = _types(layouts, facts)
  if c is None:
    return [], {}
  place = {v.number: name for v, name in zip(facts.leaves, leaves)}
  rotated = c.mixed.keys() | c.ones
  parts: dict[layout.Spot, list[_symmetry.Power]] = {}
  for value in facts.leaves:
    for spot in layout.spots(c.blocks(value)):
      free = not spot.atom.pin_reason and not spot.atom.index_mixed
      if free and spot.atom not in c.failed:
        root, colour = c.root(spot)
        power = -1.0 if colour and spot.atom not in rotated else 1.0
        parts.setdefault(root, []).append(_power(place, spot, power))
  reasons = {
    names[atom]: reason
    for atom, reason in (c.mixed | c.failed).items()
    if atom in names and not atom.pin_reason
  }
  found = [
    _symmetry.Action(
      '',
      'rotation' if root.atom in rotated else 'linear',
      names[root.atom],
      tuple(powers),
      root.atom in c.ones,
    )
    for root, powers in parts.items()
  ]
  return found, reasons


def _numbers(step: axis_facts.Step) -> set[int]:
  """Returns the numbers of the arrays of a step."""
  return {v.number for v in (*step.args, *step.results)}


def _power(
  place: Mapping[int, str], spot: layout.Spot, power: float
) -> _symmetry.Power:
  """Names an occurrence in a leaf."""
  number, _, axis, segment, factor = spot.key
  return _symmetry.Power(place[number], axis, segment, factor, power)
