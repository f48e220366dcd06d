"""Records operands and results of equations while a program runs."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
from jax.extend import core
import jax.numpy as jnp

from wsl import jaxprs, types

Path: TypeAlias = tuple[int, ...]
# An equation's path and the index of an operand, or ``~i`` of the i-th result.
Key: TypeAlias = tuple[Path, int]
Visit: TypeAlias = Callable[[Path, core.JaxprEqn, list[Any]], Sequence[Any]]


def walk(
  program: jaxprs.Program,
  args: Sequence[Any],
  visit: Visit,
  path: Path = (),
  *,
  lift: Callable[[Any], Any] = lambda x: x,
) -> list[Any]:
  """Visits the equations of a program and of the calls in it, in order.

  Args:
    program: a jaxpr.
    args: a value for each of its arguments.
    visit: a function ``(path, eqn, values) -> results``.
    path: the path of the program: indices of equations, outermost first.
    lift: converts constants and literals to values.

  Returns:
    A value for each result of the program.
  """

  def enter(k: int, eqn: core.JaxprEqn, values: list[Any]) -> Sequence[Any]:
    here, inner = (*path, k), jaxprs.called(eqn)
    if inner is None:
      return visit(here, eqn, values)
    return walk(inner, values, visit, here, lift=lift)

  return jaxprs.interpret(program, args, enter, lift=lift)


def observe(
  program: core.ClosedJaxpr,
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: tuple[Any, ...],
  wanted: set[Key],
) -> dict[Key, types.Array]:
  """Runs a function that was traced and returns some operands and results.

  Args:
    program: the jaxpr of the function.
    apply_fn: the function ``(params, *inputs)``.
    params: parameters.
    inputs: the other arguments; those that are no arrays are in the program.
    wanted: the operands and results.
  """
  _, arrays = jaxprs.bind_static(apply_fn, inputs)
  args = [jnp.asarray(x) for x in jax.tree.leaves((params, arrays))]
  return watch(program, args, wanted)[1]


def watch(
  program: jaxprs.Program,
  args: Sequence[types.Array],
  wanted: set[Key],
  path: Path = (),
) -> tuple[list[types.Array], dict[Key, types.Array]]:
  """Evaluates a program and keeps some operands and results.

  Args:
    program: a jaxpr.
    args: its arguments.
    wanted: the operands and results to keep.
    path: the path of the program.

  Returns:
    The results, and each array wanted; the steps of scans around it are leading
    axes.
  """
  seen: dict[Key, types.Array] = {}

  def visit(here: Path, eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    for i, value in enumerate(values):
      if (here, i) in wanted:
        seen[here, i] = value
    inside = {key for key in wanted if key[0][: len(here)] == here}
    if eqn.primitive.name == 'scan' and inside:
      results, more = _watch_scan(eqn, values, inside, here)
      seen.update(more)
      return results
    results = jaxprs.evaluate(eqn, values)
    for i, value in enumerate(results):
      if (here, ~i) in wanted:
        seen[here, ~i] = value
    return results

  return walk(program, args, visit, path), seen


def _watch_scan(
  eqn: core.JaxprEqn, args: list[Any], wanted: set[Key], path: Path
) -> tuple[list[Any], dict[Key, types.Array]]:
  """Runs a scan whose outputs include the arrays wanted in each step."""
  consts, carry, xs = jaxprs.split_scan(eqn, args)
  order = sorted(wanted)

  def step(state: list[Any], x: list[Any]) -> tuple[Any, Any]:
    body = eqn.params['jaxpr']
    results, seen = watch(body, [*consts, *state, *x], wanted, path)
    count = len(state)
    return results[:count], (results[count:], [seen[key] for key in order])

  last, (ys, kept) = jaxprs.run_scan(eqn, step, carry, xs)
  return [*last, *ys], dict(zip(order, kept))
