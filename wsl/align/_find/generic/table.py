"""The traits of the results of an equation, by the name of its primitive."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from jax.extend import core
import jax.numpy as jnp
import numpy as np

from wsl import jaxprs
from wsl.align._find.generic import arithmetic, moves, products
from wsl.align._find.generic import operands as operands_lib
from wsl.align._find.generic import traits as traits_lib
from wsl.align._find.rules import elementwise

Rule: TypeAlias = Callable[
  [core.JaxprEqn, Sequence[operands_lib.Operand]], traits_lib.Traits
]

_MOVES = frozenset({  # of indices too
  'broadcast_in_dim', 'concatenate', 'reshape', 'slice', 'squeeze',
  'transpose',
}) | jaxprs.CASTS  # fmt: skip
# Functions whose values are bounded, and those with no number as result.
_BOUNDED = frozenset({
  'atan', 'cos', 'erf', 'exp', 'exp2', 'logistic', 'sin', 'tanh',
  'and', 'eq', 'ge', 'gt', 'is_finite', 'le', 'lt', 'ne', 'not', 'or',
})  # fmt: skip
_TESTS = frozenset({'eq', 'gt', 'lt', 'ne', 'not'})  # of booleans and indices
_RULES: dict[str, Rule] = {
  **dict.fromkeys(arithmetic.ANALYTIC, arithmetic.unary),
  **dict.fromkeys(jaxprs.CASTS, arithmetic.same),
  'add': arithmetic.add,
  'sub': arithmetic.add,
  'mul': arithmetic.mul,
  'div': arithmetic.div,
  'reduce_sum': arithmetic.reduce_sum,
  'reduce_max': arithmetic.extremum,
  'reduce_min': arithmetic.extremum,
  **dict.fromkeys(('eq', 'gt', 'lt', 'ne'), moves.compare),
  'broadcast_in_dim': moves.broadcast_in_dim,
  'concatenate': moves.concatenate,
  'conv_general_dilated': products.convolution,
  'dot_general': products.dot_general,
  'gather': moves.gather,
  'not': moves.negate,
  'reshape': moves.reshape,
  'select_n': moves.select,
  'slice': moves.part,
  'sort': moves.ranked,
  'squeeze': moves.squeeze,
  'top_k': moves.ranked,
  'transpose': moves.transpose,
}


def needed(program: core.Jaxpr | core.ClosedJaxpr) -> bool:
  """Returns whether a program ranks entries: others need no traits."""
  jaxpr: Any = getattr(program, 'jaxpr', program)
  return any(
    eqn.primitive.name in ('argmax', 'argmin', 'top_k')
    or (eqn.primitive.name == 'sort' and len(eqn.invars) > 1)
    or any(map(needed, jaxprs.inner(eqn)))
    for eqn in jaxpr.eqns
  )


def propagate(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> list[traits_lib.Traits]:
  """Returns the traits of the results of an equation."""
  name = eqn.primitive.name
  if name in elementwise.UNCHANGED:
    return [x.traits for x in operands]
  roots = traits_lib.union([x.traits for x in operands])
  bounded = name in _BOUNDED or all(
    operands_lib.bounded(x) or not _floating(var) or _neutral(name, x)
    for var, x in zip(eqn.invars, operands)
  )
  plain = traits_lib.Traits(roots, bounded=bounded)
  plains = [plain] * len(eqn.outvars)
  floating = [_floating(var) for var in eqn.outvars]
  rule = _RULES.get(name)
  moved = name in _MOVES or name in _TESTS or name == 'select_n'
  if rule is None or not (moved or (floating[0] and bounded)):
    return plains
  found = rule(eqn, operands)._replace(roots=roots, bounded=bounded)
  ndim = len(jaxprs.shape_of(eqn.outvars[0]))
  return [traits_lib.close(found, ndim), *plains[1:]]


def _neutral(name: str, x: operands_lib.Operand) -> bool:
  """Returns whether an operand is the infinity that an extremum ignores."""
  ignored = {'max': -np.inf, 'min': np.inf}.get(name)
  if ignored is None or x.constant is None:
    return False
  array = x.constant.array()
  return array is not None and bool((array == ignored).all())


def _floating(var: core.Var | core.Literal) -> bool:
  """Returns whether a variable holds floating numbers."""
  dtype = getattr(var.aval, 'dtype', np.dtype(bool))
  return bool(jnp.issubdtype(dtype, jnp.floating))
