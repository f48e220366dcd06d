"""Loops over flat values, such as sums over many models in chunks of them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from wsl.tree._chunks import values

Interpret = Callable[[values.Window, Any, Sequence[Any]], list[Any]]


def scan(
  window: values.Window,
  eqn: core.JaxprEqn,
  operands: Sequence[Any],
  interpret: Interpret,
) -> list[Any]:
  """Runs a ``scan`` that has a carry only, as ``fori_loop`` makes it.

  Args:
    window: the positions.
    eqn: the equation; a scan with stacked inputs or results is refused.
    operands: constants and carry, values of any kind.
    interpret: runs the body.

  Returns:
    The carry after the last step.
  """
  body = eqn.params['jaxpr']
  # Stacked inputs and results have one more axis than those of a step.
  same = lambda x, y: [*map(values.shape_of, x)] == [*map(values.shape_of, y)]
  values.require(same(eqn.invars, body.jaxpr.invars))
  values.require(same(eqn.outvars, body.jaxpr.outvars))
  constants = len(eqn.invars) - len(eqn.outvars)
  shapes = [values.shape_of(v) for v in eqn.outvars]
  start = [
    _settled(window, value, shape)
    for value, shape in zip(operands[constants:], shapes)
  ]
  leads = [x.lead if isinstance(x, values.Flat) else None for x in start]

  def arrays(carry: Sequence[Any]) -> tuple[Any, ...]:
    # A carry keeps its kind: what is uniform stays so.
    return tuple(
      values.whole(x)
      if lead is None
      else values.to_flat(window, x, lead, shape)
      for x, lead, shape in zip(carry, leads, shapes)
    )

  def kinds(carry: Sequence[Any]) -> list[Any]:
    return [
      x if lead is None else values.Flat(x, lead)
      for x, lead in zip(carry, leads)
    ]

  def step(_: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
    given = [*operands[:constants], *kinds(carry)]
    return arrays(interpret(window, body, given))

  return kinds(jax.lax.fori_loop(0, eqn.params['length'], step, arrays(start)))


def _settled(window: values.Window, value: Any, shape: tuple[int, ...]) -> Any:
  """Returns a value that is spread over the leaf as a flat one."""
  if not isinstance(value, (values.Spread, values.Grid)):
    return value
  if (lead := values.leading(shape, window.size)) is None:
    return values.whole(value)
  return values.Flat(values.to_flat(window, value, lead, shape), lead)
