r"""Scans that add up their steps, rewritten as sums.

A scan whose carry is only added to, :math:`c \leftarrow c + g(x_k)`, returns
:math:`c + \sum_k g(x_k)`: the order of its steps is that of the terms of a sum,
and the scanned axis, of experts for example, may be permuted. In a scan the
axis would be pinned, because a carry depends on the order of steps in general.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp

from wsl import jaxprs

_ADD = ('add', 'add_any')


def rewrite(program: core.ClosedJaxpr) -> core.ClosedJaxpr | None:
  """Returns the program with sums in place of such scans.

  Args:
    program: a closed jaxpr.

  Returns:
    A program that computes the same, up to the rounding of sums, or ``None`` if
    it has no such scan. Branches and bodies of ``while`` are not searched.
  """
  if not _needed(program):
    return None
  return jax.make_jaxpr(lambda *args: _run(program, args))(*program.in_avals)


def _needed(program: jaxprs.Program) -> bool:
  """Returns whether a program has a scan that adds up its steps."""
  jaxpr: Any = getattr(program, 'jaxpr', program)
  return any(_inside(eqn) for eqn in jaxpr.eqns)


def _inside(eqn: core.JaxprEqn) -> bool:
  """Returns whether an equation is such a scan, or has one in its body."""
  if eqn.primitive.name == 'scan':
    return _is_sum(eqn) or _needed(eqn.params['jaxpr'])
  called = jaxprs.called(eqn)
  return called is not None and _needed(called)


def _run(program: jaxprs.Program, args: Sequence[Any]) -> list[Any]:
  """Evaluates a program, each such scan as a sum."""

  def visit(k: int, eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    del k
    if not _inside(eqn):
      return jaxprs.evaluate(eqn, values)
    called = jaxprs.called(eqn)
    if called is not None:
      return _run(called, values)
    consts, carry, stacks = jaxprs.split_scan(eqn, values)
    body = eqn.params['jaxpr']
    if not _is_sum(eqn):
      step = lambda carry, x: _split(
        _run(body, [*consts, *carry, *x]), len(carry)
      )
      last, stacked = jaxprs.run_scan(eqn, step, [*carry], [*stacks])
      return [*last, *stacked]
    # From a carry of zeros, a step returns its term.
    zeros = [jnp.zeros_like(x) for x in carry]
    terms = jax.vmap(lambda *x: _run(body, [*consts, *zeros, *x]))(*stacks)
    return [x + jnp.sum(t, 0, x.dtype) for x, t in zip(carry, terms)]

  return jaxprs.interpret(program, args, visit)


def _split(results: list[Any], count: int) -> tuple[list[Any], list[Any]]:
  return results[:count], results[count:]


def _is_sum(eqn: core.JaxprEqn) -> bool:
  """Returns whether a scan adds a term to each carry, and does nothing else."""
  body: Any = eqn.params['jaxpr'].jaxpr
  _, carry, stacks = jaxprs.split_scan(eqn, body.invars)
  if not carry or not stacks or len(eqn.outvars) > len(carry):
    return False
  made = {var: e for e in body.eqns for var in e.outvars}
  uses = [
    var
    for e in body.eqns
    for var in e.invars
    if not isinstance(var, core.Literal)
  ]
  for old, new in zip(carry, body.outvars):
    add = None if isinstance(new, core.Literal) else made.get(new)
    if add is None or add.primitive.name not in _ADD:
      return False
    # The carry enters its own addition, once, and no other equation.
    if uses.count(old) != 1 or not any(var is old for var in add.invars):
      return False
    # The sum is returned, and used by no other equation.
    if new in uses or body.outvars.count(new) > 1:
      return False
  return True
