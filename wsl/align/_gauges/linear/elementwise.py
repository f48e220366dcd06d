"""Rules of elementwise primitives, for vectors along an axis."""

from typing import Any

from wsl import jaxprs
from wsl.align._find import axis_facts, known_constants
from wsl.align._gauges import layout
from wsl.align._gauges.linear import types as types_lib
from wsl.align._gauges.powers import elementwise

Types = types_lib.Types
LINEAR = (*jaxprs.CASTS, 'neg', 'optimization_barrier')


def unary(c: Types, step: axis_facts.Step) -> bool:
  """Linear functions keep vectors; others accept uniform arrays only."""
  x, out = step.args[0], step.results[0]
  found = elementwise.aligned(c, [x, out], out)
  if found is None:
    return False
  power = step.eqn.params.get('y')
  squared = step.name == 'square' or (step.name == 'integer_pow' and power == 2)
  for dims in elementwise.dimensions(found):
    pairs = layout.same(*dims)
    if pairs is None:
      return False
    for a, r in pairs:
      if step.name in LINEAR:
        c.join(a, r)
      elif squared:
        c.multiply(a, a, r)
      elif c.states.get(a) in (types_lib.UNIFORM, types_lib.ZERO):
        c.states[r] = types_lib.UNIFORM
      else:
        c.fail(a)
  return True


def _rows(
  c: Types, step: axis_facts.Step
) -> list[tuple[list[layout.Spot | None], layout.Spot]] | None:
  """Returns for each atom of the result its occurrences in the operands.

  An operand of size 1 along the dimension, or a number, has None.
  """
  out = step.results[0]
  full = [v for v in step.args if v.axes]
  found = elementwise.aligned(c, [*full, out], out)
  if found is None:
    return None
  rows: list[tuple[list[layout.Spot | None], layout.Spot]] = []
  for *dims, result in elementwise.dimensions(found):
    columns: list[Any] = []
    for dimension in dims:
      if dimension == layout.ONE and result != layout.ONE:
        columns.append(None)
        continue
      pairs = layout.same(dimension, result)
      if pairs is None:
        return None
      columns.append([p[0] for p in pairs])
    for k, spot in enumerate(layout.along(result)):
      given = iter(columns)
      row = [
        None if not v.axes or (col := next(given)) is None else col[k]
        for v in step.args
      ]
      rows.append((row, spot))
  return rows


def _values(c: Types, row: list[layout.Spot | None]) -> list[layout.Spot]:
  """Returns the occurrences in operands that vary along the atom."""
  return [s for s in row if s is not None]


def add(c: Types, step: axis_facts.Step) -> bool:
  """Sums vectors; a number added to all of them is a multiple of ones."""
  rows = _rows(c, step)
  if rows is None:
    return False
  zeros = [known_constants.is_zero(v.constant) for v in step.args]
  for row, out in rows:
    spots = _values(c, row)
    states = {c.states.get(s) for s in spots}
    if None in states:
      c.fail(out)
      continue
    # A number added to all entries of a vector is a multiple of ones.
    flat = any(s is None and not z for s, z in zip(row, zeros))
    several = len(states) > 1 or flat or len(spots) > 1
    if types_lib.PAIR in states and several:
      c.fail(out)
      continue
    uniform = flat or types_lib.UNIFORM in states
    if types_lib.VECTOR in states:
      if uniform:
        c.ones.add(out.atom)
      for s in spots:
        if c.states[s] == types_lib.VECTOR:
          c.join(s, out)
    elif uniform:
      c.states[out] = types_lib.UNIFORM
    else:
      c.join(spots[0], out)
  return True


def multiply(c: Types, step: axis_facts.Step) -> bool:
  """Multiplies vectors by numbers, or two vectors."""
  rows = _rows(c, step)
  if rows is None:
    return False
  for row, out in rows:
    spots = _values(c, row)
    if len(spots) == 1:
      c.join(spots[0], out)
    elif spots:  # x y is invariant once it is summed, see ``types_lib.PAIR``
      c.multiply(spots[0], spots[1], out)
  return True


def divide(c: Types, step: axis_facts.Step) -> bool:
  """Divides vectors by numbers that do not vary along the axis."""
  rows = _rows(c, step)
  if rows is None:
    return False
  for row, out in rows:
    above, below = row
    state = None if below is None else c.states.get(below)
    if below is not None and state != types_lib.UNIFORM:
      c.fail(below)
    elif above is not None:
      c.join(above, out)
    else:
      c.states[out] = types_lib.UNIFORM
  return True


def any_function(c: Types, step: axis_facts.Step) -> bool:
  """Accepts only operands that do not vary along an axis."""
  rows = _rows(c, step)
  if rows is None or len(step.results) != 1:
    return False
  still = (types_lib.UNIFORM, types_lib.ZERO)
  for row, out in rows:
    if all(c.states.get(s) in still for s in _values(c, row)):
      c.states[out] = types_lib.UNIFORM
    else:
      c.fail(out)
  return True


def select(c: Types, step: axis_facts.Step) -> bool:
  """Selects between vectors by a predicate that is uniform along the axis."""
  rows = _rows(c, step)
  if rows is None:
    return False
  still = (types_lib.UNIFORM, types_lib.ZERO)
  zeros = [known_constants.is_zero(v.constant) for v in step.args]
  for (pred, *cases), out in rows:
    if pred is not None and c.states.get(pred) not in still:
      c.fail(pred)
    flat = any(s is None and not z for s, z in zip(cases, zeros[1:]))
    for s in cases:
      if s is not None:
        c.join(s, out)
    if flat:
      if c.states.get(out) == types_lib.VECTOR:
        c.ones.add(out.atom)
      elif out not in c.states:
        c.states[out] = types_lib.UNIFORM
  return True
