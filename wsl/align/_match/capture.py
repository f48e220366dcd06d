"""Evaluates a program and keeps operands on the way, also those in scans."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
from jax.extend import core

from wsl import types
from wsl.align._find import jaxpr_reader

Path: TypeAlias = tuple[int, ...]
Key: TypeAlias = tuple[Path, int]  # an equation's path, and which operand
Visit: TypeAlias = Callable[[Path, core.JaxprEqn, list[Any]], Sequence[Any]]


def walk(
  program: Any, args: Sequence[Any], visit: Visit, path: Path, const: Any = None
) -> list[Any]:
  """Visits each equation of a program and of what it calls, in order."""
  jaxpr: Any = getattr(program, 'jaxpr', program)
  consts = getattr(program, 'consts', ())
  env = {
    v: c if const is None else const for v, c in zip(jaxpr.constvars, consts)
  }
  env.update(zip(jaxpr.invars, args))

  def get(var: Any) -> Any:
    if isinstance(var, core.Literal):
      return var.val if const is None else const
    return env[var]

  for k, eqn in enumerate(jaxpr.eqns):
    values, here = [get(v) for v in eqn.invars], (*path, k)
    if eqn.primitive.name in jaxpr_reader.CALLS:
      inner = eqn.params[jaxpr_reader.CALLS[eqn.primitive.name]]
      results: Sequence[Any] = walk(inner, values, visit, here, const)
    else:
      results = visit(here, eqn, values)
    env.update(zip(eqn.outvars, results))
  return [get(v) for v in jaxpr.outvars]


def watch(
  program: Any,
  args: Sequence[types.Array],
  wanted: set[Key],
  path: Path = (),
) -> tuple[list[types.Array], dict[Key, types.Array]]:
  """Evaluates a program; also returns the operands that are wanted."""
  seen: dict[Key, types.Array] = {}

  def visit(here: Path, eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    for i, value in enumerate(values):
      if (here, i) in wanted:
        seen[here, i] = value
    inside = {key for key in wanted if key[0][: len(here)] == here}
    if eqn.primitive.name == 'scan' and inside:
      results, more = _scan(eqn, values, inside, here)
      seen.update(more)
      return results
    return _evaluate(eqn, values, getattr(program, 'jaxpr', program))

  return walk(program, args, visit, path), seen


def _evaluate(
  eqn: core.JaxprEqn, values: list[Any], jaxpr: core.Jaxpr
) -> list[Any]:
  """Evaluates one equation, as a program of its own."""
  given = {
    var: value
    for var, value in zip(eqn.invars, values)
    if not isinstance(var, core.Literal)
  }
  alone = jaxpr.replace(
    constvars=[], invars=[*given], outvars=eqn.outvars, eqns=[eqn]
  )
  return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given.values())


def _scan(
  eqn: core.JaxprEqn, args: list[Any], wanted: set[Key], path: Path
) -> tuple[list[Any], dict[Key, types.Array]]:
  """Scans a loop and stacks what is wanted of its steps."""
  p = eqn.params
  whole, count = jaxpr_reader.whole_and_carry(eqn)
  consts, carry = args[: whole - count], args[whole - count : whole]

  def step(state: list[Any], x: list[Any]) -> tuple[Any, Any]:
    results, seen = watch(p['jaxpr'], [*consts, *state, *x], wanted, path)
    return results[:count], (results[count:], [seen[key] for key in order])

  order = sorted(wanted)
  options = {k: p[k] for k in ('length', 'reverse', 'unroll')}
  last, (ys, kept) = jax.lax.scan(step, carry, args[whole:], **options)
  return [*last, *ys], dict(zip(order, kept))
