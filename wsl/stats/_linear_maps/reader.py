"""Evaluates a jaxpr and propagates views of weights to the products they enter.

Each variable has its value and, if it holds the entries of a weight, a view of
that weight. Casts, reshapes, calls and scans map views to views. At a product
of a view and a value, a statistic of the value is recorded. Under ``jit``,
equations that no statistic depends on are not computed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp

from wsl import jaxprs, types
from wsl.stats._linear_maps import records, uses, views


class Tracked(NamedTuple):
  """A value, and its relation to weights.

  Attributes:
    value: the value.
    view: if it holds the entries of one leaf, their positions in the leaf.
    term: like ``view``, but entries may be repeated along axes.
    product: if it is the product of a weight and a value, the positions of the
      output axes of the weight.
  """

  value: Any
  view: views.View | None = None
  term: views.View | None = None
  product: views.View | None = None

  @classmethod
  def leaf(cls, value: Any, view: views.View | None) -> 'Tracked':
    """Returns a tracked leaf, or a tracked slice of a stacked leaf."""
    return cls(value, view, view)


def record_products(
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: Any,
  measure: records.Measure = records.second_moment,
) -> records.Record:
  """Runs a function and records a statistic of each product with a weight.

  Args:
    apply_fn: a function ``(params, inputs) -> anything``.
    params: a pytree of arrays; leaves are numbered in its order.
    inputs: one batch of inputs.
    measure: the statistic that is summed over the rows of each product.

  Returns:
    The statistics of all products.
  """
  program = jax.make_jaxpr(apply_fn)(params, inputs)
  args = [
    Tracked.leaf(x, views.of_leaf(i, x.shape) if _real(x) else None)
    for i, x in enumerate(jax.tree.leaves(params))
  ]
  args += map(Tracked, jax.tree.leaves(inputs))
  found = records.Record(measure)
  run(program, args, found)
  return found


def run(
  program: jaxprs.Program,
  args: Sequence[Tracked],
  record: records.Record,
) -> list[Tracked]:
  """Evaluates a jaxpr and records every product of a weight and a value.

  Args:
    program: a jaxpr, closed if it has constants.
    args: its arguments.
    record: receives the statistics.

  Returns:
    The program's results.
  """
  visit = lambda k, eqn, values: _equation(eqn, values, record)
  return jaxprs.interpret(program, args, visit, lift=Tracked)


def _equation(
  eqn: core.JaxprEqn,
  args: list[Tracked],
  record: records.Record,
) -> list[Tracked]:
  """Evaluates one equation, and records it if it is a product with a weight."""
  name = eqn.primitive.name
  program = jaxprs.called(eqn)
  if program is not None:
    return run(program, args, record)
  weights = [a.view for a in args if a.view is not None]
  if name == 'scan' and weights:
    return _scan(eqn, args, record)
  outs = jaxprs.evaluate(eqn, [a.value for a in args])
  if name == 'optimization_barrier':
    return [a._replace(value=out) for out, a in zip(outs, args)]
  if name == 'dot_general' and len(weights) == 1:
    side = 0 if args[0].view else 1
    x = args[1 - side].value
    product = uses.dot(record, eqn, weights[0], x, outs[0], side)
    return [Tracked(outs[0], product=product)]
  if name == 'conv_general_dilated' and weights == [args[1].view]:
    x = args[0].value
    made = uses.convolution(record, eqn, weights[0], x, outs[0])
    return [Tracked(outs[0], product=made)]
  if name in ('add', 'add_any'):  # a bias, perhaps
    for a, b in (args, reversed(args)):
      if a.product and b.term:
        uses.added(record, a.product, b.term)
  results = [Tracked(out) for out in outs]
  if len(args) == len(outs) == 1:
    results = [_rearrange(eqn, args[0], outs[0])]
  if not any(result.view for result in results):
    for weight in weights:
      record.note(weight, name)
  return results


def _rearrange(eqn: core.JaxprEqn, arg: Tracked, out: Any) -> Tracked:
  """Propagates views through an equation with one operand and one result."""
  view, product = (
    views.propagate(v, eqn) if v else None for v in (arg.view, arg.product)
  )
  term = views.propagate_repeated(arg.term, eqn) if arg.term else None
  return Tracked(out, view, term, product)


def _scan(
  eqn: core.JaxprEqn, args: list[Tracked], record: records.Record
) -> list[Tracked]:
  """Runs a scan whose body multiplies by weights.

  Statistics of a constant weight are summed over steps, in the carry. Those of
  a stacked weight, one layer for each step, are stacked outputs. A weight in
  the carry may change between steps and is noted as untracked.
  """
  p = eqn.params
  consts, carry, xs = jaxprs.split_scan(eqn, args)
  n_carry = len(carry)
  for a in carry:
    if a.view is not None:
      record.note(a.view, 'the carry of a scan')
  inner = record.inner()
  slices = [_layer(a.view, inner.depth) for a in xs]

  def step(state: Any, x: Any) -> tuple[Any, Any]:
    nonlocal inner
    inner = record.inner()
    carry, totals = state
    layers = map(Tracked.leaf, x, slices)
    tracked = [*consts, *map(Tracked, carry), *layers]
    results = [r.value for r in run(p['jaxpr'], tracked, inner)]
    whole, stack = inner.partition()
    totals = [a + b for a, b in zip(totals, whole)] if totals else whole
    return (results[:n_carry], totals), (results[n_carry:], stack)

  # The shapes of the sums are those of one step, traced abstractly.
  init = [a.value for a in carry]
  layers = [a.value for a in xs]
  first = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in layers]
  (_, sums), _ = jax.eval_shape(step, (init, []), first)
  zeros = [jnp.zeros(m.shape, m.dtype) for m in sums]
  (last, whole), (ys, stack) = jaxprs.run_scan(eqn, step, (init, zeros), layers)
  record.close(inner, whole, stack, length=p['length'])
  return [*map(Tracked, last), *map(Tracked, ys)]


def _layer(view: views.View | None, depth: int) -> views.View | None:
  """Returns the view of one slice of a stack, along its first axis."""
  if view is None:
    return None
  stacked = (*view.stacked, (depth, view.dims[0]))
  return view._replace(dims=view.dims[1:], stacked=stacked)


def _real(x: types.Array) -> bool:
  """Returns True for a floating leaf that has entries."""
  return jnp.issubdtype(x.dtype, jnp.floating) and x.size > 0
