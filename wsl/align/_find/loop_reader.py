"""Propagates axes through loops and branches.

Each reads its inner programs with the ``Reader`` of the outer one.
"""

from collections.abc import Callable
import functools
from typing import TypeAlias

from jax.extend import core

from wsl import jaxprs
from wsl.align._find import axis_facts, axis_tree, refinement
from wsl.align._find.generic import loops
from wsl.align._find.generic import traits as traits_lib

Read: TypeAlias = Callable[
  [jaxprs.Program, axis_facts.Values], list[axis_facts.Value]
]


def scan(
  facts: axis_facts.Facts,
  read: Read,
  eqn: core.JaxprEqn,
  args: axis_facts.Values,
) -> list[axis_facts.Value]:
  """Interprets the body once; the scanned axis is part of its arrays.

  The carry is the exception: it is one array for all steps, so its axes
  cannot be permuted differently in each step. Its result is tied to it.
  """
  consts, carry, stacks = map(list, jaxprs.split_scan(eqn, args))
  parts = ([*map(axis_facts.as_operand, x)] for x in (consts, carry, stacks))
  step = loops.first(*parts)
  carry, stacks = _plain(facts, eqn, carry), _plain(facts, eqn, stacks)
  count = len(carry)
  layer = axis_tree.Axis(eqn.params['length'], 'the steps of a scan')
  for value in stacks:
    refinement.tie(value.axes[0], layer)
  for value in carry:
    facts.record(value.axes)  # before the layer: shared by all steps
  outside = facts.layers
  facts.layers = (*outside, layer)
  results, step = _steps(facts, read, eqn, step, consts, carry, stacks)
  outs = _plain(facts, eqn, results[count:])
  facts.layers = outside
  rest = _roots(args)
  last = [
    value._replace(traits=traits._replace(roots=rest.roots))
    for value, traits in zip(carry, step.carry)
  ]
  stacked = facts.number(
    [axis_facts.Value((layer, *out.axes), traits=rest) for out in outs]
  )
  put = axis_facts.Step('loop put', eqn, tuple(outs), tuple(stacked))
  facts.steps.append(put)
  return [*last, *stacked]


def _steps(
  facts: axis_facts.Facts,
  read: Read,
  eqn: core.JaxprEqn,
  step: loops.Step,
  consts: list[axis_facts.Value],
  carry: list[axis_facts.Value],
  stacks: list[axis_facts.Value],
) -> tuple[list[axis_facts.Value], loops.Step]:
  """Interprets a scan's body, again if the carry loses assumed traits.

  The second time adds constraints to those of the first.
  """
  body, count = eqn.params['jaxpr'], len(carry)
  start = [v._replace(traits=t) for v, t in zip(carry, step.carry)]
  slices = facts.number(
    [
      axis_facts.Value(value.axes[1:], traits=t)
      for value, t in zip(stacks, step.slices)
    ]
  )
  take = axis_facts.Step('loop take', eqn, tuple(stacks), tuple(slices))
  facts.steps.append(take)
  results = read(body, [*consts, *start, *slices])
  _tie(facts, eqn, carry, results[:count])
  found = [axis_facts.as_operand(value) for value in results[:count]]
  weaker = loops.common(step, found)
  if step == weaker:
    return results, step
  return _steps(facts, read, eqn, weaker, consts, carry, stacks)


def while_loop(
  facts: axis_facts.Facts,
  read: Read,
  eqn: core.JaxprEqn,
  args: axis_facts.Values,
) -> list[axis_facts.Value]:
  """Interprets condition and body once; the carry is tied to its result."""
  p = eqn.params
  test, body, carry = map(list, jaxprs.split_while(eqn, args))
  carry = _plain(facts, eqn, carry, _roots(args))
  for value in carry:
    facts.record(value.axes)
  here = facts.path
  facts.path = (*here, 0)
  read(p['cond_jaxpr'], [*test, *carry])
  facts.path = (*here, 1)
  _tie(facts, eqn, carry, read(p['body_jaxpr'], [*body, *carry]))
  return carry


def cond(
  facts: axis_facts.Facts,
  read: Read,
  eqn: core.JaxprEqn,
  args: axis_facts.Values,
) -> list[axis_facts.Value]:
  """Interprets all branches; their results are tied to each other."""
  facts.operand(args[0])
  here, outs = facts.path, []
  for k, branch in enumerate(eqn.params['branches']):
    facts.path = (*here, k)
    outs.append(read(branch, args[1:]))
  for other in outs[1:]:
    _tie(facts, eqn, outs[0], other)
  roots = traits_lib.union([arg.traits for arg in args])
  traits = [
    functools.reduce(traits_lib.common, (value.traits for value in column))
    for column in zip(*outs)
  ]
  return [
    value._replace(traits=t._replace(roots=roots))
    for value, t in zip(_plain(facts, eqn, outs[0]), traits)
  ]


def _plain(
  facts: axis_facts.Facts,
  eqn: core.JaxprEqn,
  values: axis_facts.Values,
  traits: traits_lib.Traits | None = None,
) -> list[axis_facts.Value]:
  """Drops constants and pieces: a carry changes from step to step."""
  known = traits or traits_lib.Traits()
  out = facts.number(
    [axis_facts.Value(facts.operand(value), traits=known) for value in values]
  )
  for value, plain in zip(values, out):
    facts.steps.append(axis_facts.Step('loop tie', eqn, (value,), (plain,)))
  return out


def _tie(
  facts: axis_facts.Facts,
  eqn: core.JaxprEqn,
  xs: axis_facts.Values,
  ys: axis_facts.Values,
) -> None:
  """Ties the axes of two lists of values."""
  for x, y in zip(xs, ys):
    facts.steps.append(axis_facts.Step('loop tie', eqn, (x,), (y,)))
    for a, b in zip(facts.operand(x), facts.operand(y)):
      refinement.tie(a, b)


def _roots(args: axis_facts.Values) -> traits_lib.Traits:
  """Returns traits of which only the roots are known."""
  roots = traits_lib.union([arg.traits for arg in args])
  return traits_lib.Traits(roots, bounded=False)


LOOPS = {'scan': scan, 'while': while_loop, 'cond': cond}
