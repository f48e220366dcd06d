"""Solutions of linear equations: read from the equation, not its solver.

The solution of A x = b with an invertible A is unique, so x follows every
change of A and b under which A x = b stays true. The rows of A are ordered as
those of b, and its columns as those of x: both may be permuted. The solver need
not be read. Its factors, such as those of ``lu``, are not permuted with A, but
nothing else uses them.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from jax.extend import core

from wsl import jaxprs
from wsl.align._find import axis_facts, refinement
from wsl.align._find.generic import traits as traits_lib

Read: TypeAlias = Callable[
  [jaxprs.Program, axis_facts.Values], list[axis_facts.Value]
]
_NAME = 'custom_linear_solve'


def solve(
  facts: axis_facts.Facts,
  read: Read,
  eqn: core.JaxprEqn,
  args: axis_facts.Values,
) -> list[axis_facts.Value]:
  """Returns x from the equation ``matvec(x) = b``."""
  lengths, programs = eqn.params['const_lengths'], eqn.params['jaxprs']
  right = list(args[sum(lengths) :])
  shapes = [jaxprs.shape_of(var) for var in eqn.outvars]
  unbounded = traits_lib.Traits(bounded=False)
  x = facts.number(
    [axis_facts.Value(axis_facts.fresh(s), traits=unbounded) for s in shapes]
  )
  for value in x:
    facts.record_value(value)
  found = read(programs.matvec, [*args[: lengths.matvec], *x])
  for b, y in zip(right, found):
    facts.steps.append(axis_facts.Step('loop tie', eqn, (b,), (y,)))
    for p, q in zip(facts.operand(b), facts.operand(y)):
      refinement.tie(p, q)
  return x


def only_solve(program: jaxprs.Program) -> set[int]:
  """Returns the equations whose results only solvers use, by position."""
  jaxpr: Any = getattr(program, 'jaxpr', program)
  if not any(eqn.primitive.name == _NAME for eqn in jaxpr.eqns):
    return set()
  used = _variables(jaxpr.outvars)
  dead: set[int] = set()
  for k in reversed(range(len(jaxpr.eqns))):
    eqn = jaxpr.eqns[k]
    if not eqn.effects and used.isdisjoint(eqn.outvars):
      dead.add(k)
      continue
    operands = list(eqn.invars)
    if eqn.primitive.name == _NAME:
      lengths = eqn.params['const_lengths']
      operands = operands[: lengths.matvec] + operands[sum(lengths) :]
    used |= _variables(operands)
  return dead


def _variables(atoms: Iterable[Any]) -> set[Any]:
  """Returns the variables among operands, which may be literals."""
  return {x for x in atoms if not isinstance(x, core.Literal)}
