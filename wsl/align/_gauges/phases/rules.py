"""The rule of each primitive, for arrays on which phases act."""

from collections.abc import Callable
from typing import TypeAlias

from wsl import jaxprs
from wsl.align._find import axis_facts
from wsl.align._gauges.phases import arithmetic, forms, products, rearrangement

Phases = forms.Phases
Rule: TypeAlias = Callable[[Phases, axis_facts.Step], list[forms.State] | None]


def apply(c: Phases, step: axis_facts.Step) -> None:
  """Gives the results of a step their forms, or fails for its operands."""
  tied = step.results if step.name == 'loop tie' else ()
  states = [forms.state(c, v) for v in (*step.args, *tied)]
  empty = axis_facts.is_empty(step)
  if any(state is not None for state in states) and not empty:
    _follow(c, step, states)
  c.known.update(v.number for v in step.results)


def _follow(
  c: Phases, step: axis_facts.Step, states: list[forms.State]
) -> None:
  """Applies the rule of a step."""
  rule = RULES.get(step.name)
  found = None if rule is None else rule(c, step)
  if found is None:
    for state in states:
      forms.fail(c, state, f'{step.name} of its entries')
    return
  for value, state in zip(step.results, found):
    if isinstance(state, forms.Form) and forms.is_fixed(state):
      state = None
    if state is not None:
      c.states[value.number] = state


MOVES = (
  *jaxprs.CASTS, 'broadcast_in_dim', 'dynamic_slice', 'expand_dims', 'gather',
  'optimization_barrier', 'reshape', 'rev', 'slice', 'split', 'squeeze', 'tile',
  'transpose',
)  # fmt: skip
RULES: dict[str, Rule] = {
  **dict.fromkeys(MOVES, rearrangement.move),
  **dict.fromkeys(('add', 'sub', 'add_any'), arithmetic.add),
  **dict.fromkeys(('square', 'integer_pow'), arithmetic.square),
  **dict.fromkeys(('concatenate', 'stack'), rearrangement.concatenate),
  'complex': arithmetic.complex_numbers,
  'div': arithmetic.divide,
  'dot_general': products.dot,
  'imag': arithmetic.part(True),
  'loop take': rearrangement.take,
  'loop tie': rearrangement.tie,
  'mul': arithmetic.multiply,
  'neg': arithmetic.negate,
  'real': arithmetic.part(False),
  'reduce_sum': products.reduce_sum,
  'select_n': arithmetic.select,
}
