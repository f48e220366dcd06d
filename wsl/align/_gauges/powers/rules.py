"""The table of equations, by the name of the primitive.

A rule adds the equations of one step and returns True; where it does not cover
the form of the primitive it returns False, and nothing may change there.
"""

from wsl.align._find import axis_facts, known_constants
from wsl.align._gauges.powers import charges as charges_lib
from wsl.align._gauges.powers import (
  elementwise,
  indexing,
  moves,
  primitives,
  products,
  ranges,
  stacks,
)

Charges = charges_lib.Charges
SCALE, BOTH = charges_lib.SCALE, charges_lib.BOTH


def apply(c: Charges, step: axis_facts.Step) -> None:
  """Adds the equations of one step; without a rule all powers are 0.

  A constant does not change, so its powers are 0 in every step that reads or
  returns it, such as a branch or a step of a loop; zeros have any power. Empty
  results have none.
  """
  if axis_facts.is_empty(step):
    return
  for domain in c.domains:
    domain.reason = f'{step.name} of its entries'
  for value in (*step.args, *step.results):
    constant = value.constant
    if constant is not None and not known_constants.is_zero(constant):
      c.fix(value)
  rule = RULES.get(step.name, elementwise.unary)
  if not rule(c, step):
    for value in (*step.args, *step.results):
      c.pin(value)


def _tie(c: Charges, step: axis_facts.Step) -> bool:
  """Equates an array before, in and after a loop."""
  both = (*step.args, *step.results)
  if any(known_constants.is_zero(value.constant) for value in both):
    return True
  return moves.moved(lambda eqn, rank: list(range(rank)))(c, step)


def _take(c: Charges, step: axis_facts.Step) -> bool:
  """Equates the slices of a scan with their stacks."""
  for x, y in zip(step.args, step.results):
    one = axis_facts.Step('loop take', step.eqn, (x,), (y,))
    if not moves.moved(lambda eqn, rank: list(range(1, rank)))(c, one):
      return False
  return True


def _put(c: Charges, step: axis_facts.Step) -> bool:
  """Equates the stacks of a scan with the result of each step."""
  for x, y in zip(step.args, step.results):
    one = axis_facts.Step('loop put', step.eqn, (x,), (y,))
    if not moves.moved(lambda eqn, rank: [None, *range(rank)])(c, one):
      return False
  return True


RULES = {
  **dict.fromkeys(primitives.SUMS, elementwise.equal(BOTH)),
  **dict.fromkeys(primitives.EXTREMES, elementwise.equal(SCALE)),
  **dict.fromkeys(primitives.COMPARISONS, elementwise.equal(SCALE, False)),
  **dict.fromkeys(primitives.EQUALITIES, elementwise.equal(BOTH, False)),
  'argmax': products.reduction(SCALE, forget=True),
  'argmin': products.reduction(SCALE, forget=True),
  'broadcast_in_dim': moves.moved(moves.broadcast, moves.repeated),
  'concatenate': ranges.concatenate,
  'conv_general_dilated': products.convolution,
  'cumsum': moves.same_but(lambda eqn: [eqn.params['axis']]),
  'div': elementwise.product(-1),
  'dot_general': products.dot,
  'dynamic_slice': indexing.dynamic_slice,
  'dynamic_update_slice': indexing.update,
  'expand_dims': moves.moved(moves.expanded),
  'fft': moves.same_but(moves.transformed),
  'gather': indexing.gather,
  'mul': elementwise.product(1),
  'pad': ranges.pad,
  'pow': elementwise.power,
  'loop put': _put,
  'pmax': products.reduction(SCALE),
  'pmin': products.reduction(SCALE),
  'psum': products.reduction(BOTH),
  'ragged_dot_general': products.dot,
  'reduce_max': products.reduction(SCALE),
  'reduce_min': products.reduction(SCALE),
  'reduce_sum': products.reduction(BOTH),
  'reduce_window_max': products.window(SCALE),
  'reduce_window_min': products.window(SCALE),
  'reduce_window_sum': products.window(BOTH),
  'reshape': moves.reshape,
  **dict.fromkeys(primitives.SCATTERS, indexing.scatter),
  'select_n': elementwise.select,
  'slice': ranges.slice_dimensions,
  'split': ranges.split,
  'stack': stacks.stack,
  'squeeze': moves.moved(moves.squeezed),
  'loop take': _take,
  'loop tie': _tie,
  'tile': stacks.tile,
  'transpose': moves.moved(moves.transposed),
  'triangular_solve': products.triangular_solve,
  'unstack': ranges.unstack,
}
