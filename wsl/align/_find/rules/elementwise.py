"""Rules for elementwise primitives, reductions, scans and sorts."""

from collections.abc import Sequence

from jax.extend import core

from wsl import jaxprs
from wsl.align._find import axis_facts, axis_tree, refinement

ELEMENTWISE = jaxprs.CASTS | {
  'abs', 'acos', 'acosh', 'add', 'add_any', 'and', 'asin', 'asinh', 'atan',
  'atan2', 'atanh', 'bessel_i0e', 'bessel_i1e', 'bitcast_convert_type',
  'cbrt', 'ceil', 'clamp', 'clz', 'complex', 'conj', 'cos', 'cosh', 'digamma',
  'div', 'eq', 'eq_to', 'erf', 'erf_inv', 'erfc', 'exp', 'exp2', 'expm1',
  'floor', 'ge', 'gt', 'igamma', 'igammac', 'imag', 'integer_pow',
  'is_finite', 'le', 'le_to', 'lgamma', 'log', 'log1p', 'logistic', 'lt',
  'lt_to', 'max', 'min', 'mul', 'mulhi', 'ne', 'neg', 'nextafter', 'not',
  'or', 'polygamma', 'population_count', 'pow', 'real',
  'regularized_incomplete_beta', 'rem', 'round', 'rsqrt', 'select_n',
  'shift_left', 'shift_right_arithmetic', 'shift_right_logical', 'sign',
  'sin', 'sinh', 'sqrt', 'square', 'sub', 'tan', 'tanh', 'xor', 'zeta',
}  # fmt: skip
UNCHANGED = ('optimization_barrier', 'device_put')
REDUCTIONS = tuple(
  f'reduce_{name}' for name in ('sum', 'max', 'min', 'prod', 'and', 'or', 'xor')
)
COLLECTIVES = ('psum', 'pmax', 'pmin')
CUMULATIVE = tuple(f'cum{name}' for name in ('sum', 'max', 'min', 'prod')) + (
  'cumlogsumexp',
)


def elementwise(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Axes] | None:
  """Ties the axes of all operands; scalars and axes of size 1 broadcast."""
  ranks = {len(arg.axes) for arg in args} - {0}
  if len(ranks) > 1 or len(eqn.outvars) > 1:
    return None
  out: list[axis_tree.Axis] = []
  for column in zip(*(arg.axes for arg in args if arg.axes)):
    axes = [axis for axis in column if axis.size > 1] or [column[0]]
    if any(axis.size != axes[0].size for axis in axes):
      return None
    for axis in axes[1:]:
      refinement.tie(axes[0], axis)
    out.append(axes[0])
  return [tuple(out)]


def unchanged(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Axes]:
  """Returns each operand unchanged."""
  return [arg.axes for arg in args][: len(eqn.outvars)]


def second(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Axes]:
  """Returns the second operand; the first only orders the computation."""
  return [args[1].axes]


def reduction(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Axes]:
  """Drops the reduced axes: the reduction is invariant to their order."""
  facts.reduce(args[0].axes, eqn.params['axes'])
  return [_without(args[0].axes, eqn.params['axes'])]


def collective(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Axes] | None:
  """Reduces over axes that ``vmap`` has given positions, as of ``psum``."""
  named = any(isinstance(i, str) for i in eqn.params['axes'])
  if named or eqn.params['axis_index_groups'] is not None or len(args) > 1:
    return None
  return reduction(facts, eqn, args)


def any_reduction(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Axes]:
  """Pins and drops the reduced axes: the reducer need not be commutative."""
  count = len(eqn.outvars)
  for arg in args[:count]:
    for i in eqn.params['dimensions']:
      axis_tree.pin(arg.axes[i], 'a reduction by a function')
    for x, y in zip(args[0].axes, arg.axes):
      refinement.tie(x, y)
  out = _without(args[0].axes, eqn.params['dimensions'])
  return [out] * count


def arg_reduction(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Axes]:
  """Pins and drops the axes whose indices are returned."""
  for i in eqn.params['axes']:
    axis_tree.pin(args[0].axes[i], f'{eqn.primitive.name} returns its indices')
  return [_without(args[0].axes, eqn.params['axes'])]


def cumulative(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Axes]:
  """Pins the axis along which entries accumulate."""
  x = args[0].axes
  return [
    _moved(facts, x, eqn.params['axis'], f'{eqn.primitive.name} along it')
  ]


def sort(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Axes]:
  """Pins the sorted axis.

  Sorting one array is invariant to the order of its entries, so the axis of
  the operand stays free. Sorting several by the first is not: ties of the
  first are broken by position.
  """
  i = eqn.params['dimension']
  x = args[0].axes
  if len(args) == 1:
    facts.index_dependent(x[i], x)
    return [(*x[:i], axis_tree.Axis(x[i].size, 'sorted along it'), *x[i + 1 :])]
  for arg in args[1:]:
    for a, b in zip(x, arg.axes):
      refinement.tie(a, b)
  # All operands are reordered by the keys in the first.
  moved = [_moved(facts, arg.axes, i, 'sort along it') for arg in args]
  return [moved[0]] * len(args)


def top_k(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> list[axis_facts.Axes]:
  """Pins the axis whose indices are returned."""
  x = args[0].axes
  i = eqn.params.get('axis', len(x) - 1) % len(x)
  k = jaxprs.shape_of(eqn.outvars[0])[i]
  out = facts.pin_moved(x, i, k, 'top_k along it')
  return [(*x[:i], out, *x[i + 1 :])] * 2


def _without(x: axis_facts.Axes, dims: Sequence[int]) -> axis_facts.Axes:
  """Drops the axes ``dims``."""
  return tuple(axis for i, axis in enumerate(x) if i not in dims)


def _moved(
  facts: axis_facts.Facts, x: axis_facts.Axes, i: int, reason: str
) -> axis_facts.Axes:
  """Pins the i-th axis; returns the axes of the result."""
  return (*x[:i], facts.pin_moved(x, i, x[i].size, reason), *x[i + 1 :])
