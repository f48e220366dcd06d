"""The equations that elementwise primitives put on powers and parities."""

from collections.abc import Callable, Sequence
import fractions
import itertools
from typing import Any, TypeAlias

from wsl.align._find import axis_facts, known_constants
from wsl.align._gauges import layout
from wsl.align._gauges.powers import charges as charges_lib
from wsl.align._gauges.powers import primitives

Charges = charges_lib.Charges
Rule: TypeAlias = Callable[[Charges, axis_facts.Step], bool]
SCALE, SIGN, BOTH = charges_lib.SCALE, charges_lib.SIGN, charges_lib.BOTH


def aligned(
  c: Any, values: Sequence[axis_facts.Value], model: axis_facts.Value
) -> list[layout.Layout] | None:
  """Returns the layouts of arrays of one shape, all in the pieces of one."""
  whole = c.blocks(model)
  many = [c.blocks(v) for v in values if len(c.blocks(v).pieces) > 1]
  whole = many[0] if many else whole
  found = [layout.like(c.blocks(v), whole) for v in values]
  return None if any(x is None for x in found) else found  # type: ignore[return-value]


def unary(c: Charges, step: axis_facts.Step) -> bool:
  """A function of each entry: homogeneous, odd, even or none of them."""
  if primitives.degree(step.eqn, 0) is None or len(step.args) != 1:
    return False
  found = aligned(c, [*step.args, *step.results], step.results[0])
  if found is None:
    return False
  for d in BOTH:
    degree = primitives.degree(step.eqn, d)
    for x, y in dimensions(found):
      if degree in (primitives.PIN, primitives.FORGET):
        pinned = (x, y) if degree == primitives.PIN else (y,)
        c.zero([s for dim in pinned for s in layout.along(dim)], (d,))
      elif degree == 1:
        c.equal(x, y, (d,))
      else:
        c.combine((x, y), (degree, -1), (d,))
  return True


def dimensions(
  found: Sequence[layout.Layout],
) -> list[tuple[layout.Dimension, ...]]:
  """Returns the dimensions of arrays of one shape, piece by piece."""
  out = []
  for pieces in zip(*(x.pieces for x in found)):
    out += list(zip(*pieces))
  return out


def _operands(
  c: Charges, step: axis_facts.Step, values: Sequence[axis_facts.Value]
) -> list[list[layout.Layout]] | None:
  """Returns the layouts of operands and of the result; scalars have none."""
  full = [v for v in values if v.axes]
  found = aligned(c, [*full, step.results[0]], step.results[0])
  return None if found is None else [found[:-1], found[-1:]]


def equal(domains: Any, also: bool = True) -> Rule:
  """Sums and extremes: equal powers of all operands and the result.

  Args:
    domains: those in which the powers may differ from 0.
    also: whether the result has the power of the operands, or 0.
  """

  def rule(c: Charges, step: axis_facts.Step) -> bool:
    values = [v for v in step.args if not known_constants.is_zero(v.constant)]
    return _alike(c, step, values, domains, also)

  return rule


def _alike(
  c: Charges,
  step: axis_facts.Step,
  values: Sequence[axis_facts.Value],
  domains: Any,
  also: bool,
) -> bool:
  """Requires equal powers of some operands, and of the result or 0 there."""
  split = _operands(c, step, values)
  if split is None:
    return False
  full, (out,) = split
  fixed = any(
    not v.axes or (v.constant and not known_constants.identities(v.constant))
    for v in values
  )
  others = tuple(d for d in BOTH if d not in domains)
  for value in values:
    c.zero(layout.spots(c.blocks(value)), others)
  c.zero(layout.spots(out), others if also else BOTH)
  if fixed:  # a number or a constant does not scale
    for value in values:
      c.pin(value)
    c.zero(layout.spots(out))
    return True
  rows = [*full, out] if also else full
  for dims in dimensions(rows):
    for other in dims[1:]:
      c.equal(dims[0], other, domains)
  if not also:
    for dims in dimensions([*full, out]):
      if any(_repeated(dim, dims) for dim in dims[:-1]):
        c.zero([s for dim in dims for s in layout.along(dim)])
  return True


def _repeated(
  dimension: layout.Dimension, others: Sequence[layout.Dimension]
) -> bool:
  """Returns True for a dimension of size 1 that is repeated along others."""
  return dimension == layout.ONE and any(
    other != layout.ONE for other in others
  )


def select(c: Charges, step: axis_facts.Step) -> bool:
  """A choice: equal powers of the cases; the predicate does not change."""
  pred, *cases = step.args
  c.pin(pred)
  cases = [v for v in cases if not known_constants.is_zero(v.constant)]
  return _alike(c, step, cases, BOTH, True)


def product(sign: int) -> Rule:
  """Products add powers, quotients subtract them."""

  def rule(c: Charges, step: axis_facts.Step) -> bool:
    split = _operands(c, step, step.args)
    if split is None:
      return False
    full, (out,) = split
    signs = [1 if k == 0 else sign for k, v in enumerate(step.args) if v.axes]
    for value in step.args:
      if value.constant is not None:
        c.pin(value)
    for dims in dimensions([*full, out]):
      # An operand of size 1 along a dimension has no power there.
      keep = [not _repeated(dim, dims) for dim in dims]
      powers = itertools.compress([*signs, -1], keep)
      c.combine([*itertools.compress(dims, keep)], [*powers])
    return True

  return rule


def power(c: Charges, step: axis_facts.Step) -> bool:
  """A constant power multiplies the powers of scales."""
  x, y = step.args
  exponent = known_constants.array_of(y.constant)
  if exponent is None or exponent.size != 1:
    return False
  found = aligned(c, [x, step.results[0]], step.results[0])
  if found is None:
    return False
  power = fractions.Fraction(float(exponent.reshape(())))
  for dims in dimensions(found):
    c.combine(dims, (power, -1), SCALE)
  for value in (x, step.results[0]):
    c.zero(layout.spots(c.blocks(value)), SIGN)
  return True
