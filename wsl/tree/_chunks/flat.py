"""Programs on flat chunks of a leaf, derived from the traced program.

A leaf may be computed in slices if its program is entrywise over the trailing
axes: the jaxpr is interpreted with every value of shape ``[*lead, *S]``
replaced by its part ``[*lead, n]`` at n consecutive positions (``values``). The
equations are those of the program traced at the true shapes, so nothing depends
on what a kernel would do with other shapes. A program with an equation that
mixes positions, or that has no rule, is not run in chunks: the analysis may
refuse, it cannot be wrong.
"""

from collections.abc import Sequence
import math
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from wsl.tree._chunks import loops, products, structure, values

# ``jaxprs.interpret`` walks the same environment and calls, but that file
# imports ``tree``, whose names of leaves it reports. Literals also differ: an
# entrywise primitive is bound to them here, as arrays of their own dtype.
_CALLS = {
  'jit': 'jaxpr', 'closed_call': 'call_jaxpr',
  'core_call': 'call_jaxpr', 'checkpoint': 'jaxpr', 'remat2': 'jaxpr',
  'custom_jvp_call': 'call_jaxpr', 'custom_vjp_call': 'call_jaxpr',
}  # fmt: skip
_ENTRYWISE = frozenset({
  'abs', 'acos', 'acosh', 'add', 'and', 'asin', 'asinh', 'atan', 'atan2',
  'atanh', 'bitcast_convert_type', 'cbrt', 'ceil', 'clamp', 'complex', 'conj',
  'convert_element_type', 'copy', 'copy_p', 'cos', 'cosh', 'div', 'eq', 'erf',
  'erf_inv', 'erfc', 'exp', 'exp2', 'expm1', 'floor', 'ge', 'gt', 'imag',
  'integer_pow', 'is_finite', 'le', 'log', 'log1p', 'logistic', 'lt', 'max',
  'min', 'mul', 'ne', 'neg', 'nextafter', 'not', 'or', 'population_count',
  'pow', 'real', 'reduce_precision', 'rem', 'round', 'rsqrt', 'select_n',
  'shift_left', 'shift_right_arithmetic', 'shift_right_logical', 'sign', 'sin',
  'sinh', 'sqrt', 'square', 'stop_gradient', 'sub', 'tan', 'tanh', 'xor',
})  # fmt: skip
_JOINS = {'stack': 'axis', 'concatenate': 'dimension'}
# They only change the shape of a number that is spread over a leaf.
_SHAPES = frozenset({
  'broadcast_in_dim', 'reshape', 'rev', 'slice', 'squeeze', 'transpose',
  'unstack',
})  # fmt: skip


def interpret(
  window: values.Window, program: Any, args: Sequence[Any]
) -> list[Any]:
  """Runs a jaxpr on values at the positions of a window.

  Args:
    window: the positions.
    program: a jaxpr, traced at the shapes of whole leaves.
    args: for each argument a ``values.Flat``, or an array that is uniform.

  Returns:
    For each result a value of any kind.

  Raises:
    values.NotFlatError: if an equation mixes positions, or has no rule.
  """
  jaxpr = getattr(program, 'jaxpr', program)
  env: dict[Any, Any] = dict(
    zip(jaxpr.constvars, getattr(program, 'consts', ()))
  )
  env.update(zip(jaxpr.invars, args))

  def read(x: Any) -> Any:
    literal = isinstance(x, core.Literal)
    return np.asarray(x.val, x.aval.dtype) if literal else env[x]

  for eqn in jaxpr.eqns:
    results = _apply(window, eqn, [read(x) for x in eqn.invars])
    env.update(zip(eqn.outvars, results))
  return [read(x) for x in jaxpr.outvars]


def _apply(
  window: values.Window, eqn: core.JaxprEqn, operands: list[Any]
) -> Sequence[Any]:
  """Returns the results of one equation."""
  name = eqn.primitive.name
  if name in _CALLS:
    return interpret(window, eqn.params[_CALLS[name]], operands)
  if name == 'cond' and eqn.params.get('branches_platforms'):
    return interpret(window, _branch(eqn), operands[1:])
  if name == 'scan' and any(isinstance(v, _VARYING) for v in operands):
    return loops.scan(window, eqn, operands, interpret)
  if name == 'iota':
    return [values.iota(eqn)]
  if name in _ENTRYWISE:
    return [_entrywise(window, eqn, operands)]
  if name == 'dot_general' and not any(isinstance(v, tuple) for v in operands):
    size = math.prod(values.shape_of(eqn.outvars[0]))
    if size > values.MOST_UNIFORM:
      return [products.product(window, eqn, *operands)]
  first: Any = operands[0] if operands else None
  number = isinstance(first, values.Spread) and not np.ndim(first.value)
  if number and name in _SHAPES:
    shapes = [values.shape_of(v) for v in eqn.outvars]
    return [values.Spread(first.value, shape, ()) for shape in shapes]
  if isinstance(first, (values.Grid, values.Spread)):
    shape = values.shape_of(eqn.invars[0])
    if (lead := values.leading(shape, window.size)) is not None:
      first = values.Flat(values.to_flat(window, first, lead, shape), lead)
  if name in _JOINS and any(isinstance(v, _VARYING) for v in operands):
    return [_join(window, eqn, operands)]
  if isinstance(first, values.Flat):
    values.require(name in structure.RULES)
    return structure.RULES[name](window, eqn, first, operands[1:])
  if name == 'broadcast_in_dim' and not isinstance(first, values.Spread):
    dims = tuple(eqn.params['broadcast_dimensions'])
    return [values.Spread(first, eqn.params['shape'], dims)]
  return values.uniform(eqn, operands)


_VARYING = (values.Flat, values.Grid)


def _branch(eqn: core.JaxprEqn) -> Any:
  """Returns the branch of ``platform_dependent`` for the default device."""
  with jax.core.eval_context():
    (device,) = jnp.zeros(()).devices()
  names = {'gpu': ('cuda', 'rocm')}.get(device.platform, (device.platform,))
  each = zip(eqn.params['branches_platforms'], eqn.params['branches'])
  return next(
    branch
    for platforms, branch in each
    if platforms is None or set(platforms) & set(names)
  )


def _entrywise(
  window: values.Window, eqn: core.JaxprEqn, operands: list[Any]
) -> Any:
  """Applies an entrywise primitive."""
  out = values.shape_of(eqn.outvars[0])
  if not any(isinstance(v, _VARYING) for v in operands):
    result = _entrywise_uniform(eqn, operands)
    if result is not None:
      return result
  if (grid := values.affine(eqn, operands)) is not None:
    return grid
  leads = {v.lead for v in operands if isinstance(v, values.Flat)}
  lead = leads.pop() if leads else values.leading(out, window.size)
  if lead is None:
    return values.uniform(eqn, operands)[0]
  values.require(not leads)
  args = [
    _operand(window, v, lead, values.shape_of(x), out)
    for v, x in zip(operands, eqn.invars)
  ]
  return values.Flat(values.bind(eqn, args), lead)


def _operand(
  window: values.Window,
  value: Any,
  lead: int,
  shape: tuple[int, ...],
  out: tuple[int, ...],
) -> Any:
  """Returns an operand of an entrywise primitive at the positions."""
  if out and not shape and not isinstance(value, tuple):
    return value  # a number
  if isinstance(value, _VARYING):
    # A bit cast to another width has another shape.
    values.require(shape[lead:] == out[lead:])
    return values.to_flat(window, value, lead, shape)
  # Axes of one entry are broadcast.
  same = [a in (1, b) for a, b in zip(shape, out)]
  values.require(len(shape) == len(out) and all(same))
  return values.to_flat(window, value, lead, out)


def _entrywise_uniform(eqn: core.JaxprEqn, operands: list[Any]) -> Any:
  """Applies an entrywise primitive to uniform values, or to those they spread.

  Returns None for values that are spread along different axes.
  """
  out = values.shape_of(eqn.outvars[0])
  spreads = [v for v in operands if isinstance(v, values.Spread)]
  if not spreads:
    return values.uniform(eqn, operands)[0]
  inner = [v.value if isinstance(v, values.Spread) else v for v in operands]
  layouts = {(v.dims, np.shape(v.value)) for v in spreads if np.ndim(v.value)}
  numbers = [v for v in operands if not isinstance(v, values.Spread)]
  same = all(values.shape_of(v) in ((), out) for v in eqn.invars)
  if len(layouts) > 1 or any(map(np.ndim, numbers)) or not same:
    return None
  dims, shape = layouts.pop() if layouts else ((), ())
  inner = [jnp.broadcast_to(v, shape) for v in inner]
  return values.Spread(values.bind(eqn, inner), out, dims)


def _join(
  window: values.Window, eqn: core.JaxprEqn, operands: list[Any]
) -> values.Flat:
  """Stacks or concatenates along a leading axis."""
  name = eqn.primitive.name
  shapes = [values.shape_of(v) for v in eqn.invars]
  leads = {v.lead for v in operands if isinstance(v, values.Flat)}
  lead = leads.pop() if leads else values.leading(shapes[0], window.size)
  grows = int(name == 'stack')
  if lead is None or leads:
    raise values.NotFlatError
  values.require(eqn.params[_JOINS[name]] < lead + grows)
  arrays = [
    values.to_flat(window, v, lead, shape) for v, shape in zip(operands, shapes)
  ]
  return values.Flat(values.bind(eqn, arrays), lead + grows)
