"""Traits of sums, products, functions of one variable and reductions."""

from collections.abc import Mapping, Sequence

from jax.extend import core
import jax.numpy as jnp
import numpy as np

from wsl import jaxprs
from wsl.align._find.generic import operands as operands_lib
from wsl.align._find.generic import traits as traits_lib

_KEEP_ZERO = frozenset({  # zero only at zero
  'abs', 'asinh', 'atan', 'cbrt', 'erf', 'expm1', 'integer_pow', 'log1p', 'neg',
  'sinh', 'sqrt', 'square', 'tanh',
})  # fmt: skip
_POSITIVE = frozenset({'cosh', 'exp', 'exp2', 'logistic', 'rsqrt'})
_INJECTIVE = frozenset({
  'asinh', 'atan', 'cbrt', 'erf', 'erfc', 'exp', 'exp2', 'expm1', 'log',
  'log1p', 'logistic', 'neg', 'rsqrt', 'sinh', 'sqrt', 'tanh',
})  # fmt: skip
ANALYTIC = _KEEP_ZERO | _POSITIVE | _INJECTIVE | {'cos', 'sin', 'tan'}


def pair(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> list[tuple[traits_lib.Traits, traits_lib.Traits]]:
  """Returns the traits of two operands in both orders."""
  shape = jaxprs.shape_of(eqn.outvars[0])
  x, y = (operands_lib.broadcast(operand, shape).traits for operand in operands)
  return [(x, y), (y, x)]


def independent(
  table: Mapping[int, traits_lib.Dims], other: traits_lib.Traits
) -> dict[int, traits_lib.Dims]:
  """Returns the entries of the roots that another array does not have."""
  return {m: dims for m, dims in table.items() if not m & other.roots}


def add(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """U + v: a density of u, given v, is only shifted by v.

  If v is linear in a root that u does not have, it is zero or has a density:
  the sum is u, or has a density.
  """
  for k, x in enumerate(operands):
    if operands_lib.uniform(x, 0):
      return pair(eqn, operands)[1 - k][0]
  if eqn.primitive.name == 'sub' and operands_lib.uniform(operands[0], 1):
    other = pair(eqn, operands)[1][0]
    if other.hot or other.cold:
      return other._replace(hot=other.cold, cold=other.hot)
  found = traits_lib.Traits()
  for u, v in (pairs := pair(eqn, operands)):
    terms = independent(v.linear, u)
    dims = traits_lib.NONE.union(*terms.values())
    found = found._replace(
      nonzero=found.nonzero or (u.nonzero and bool(terms)),
      distinct=found.distinct | (u.distinct & (v.flat | dims)),
      alive=found.alive | (u.alive & dims),
      joint={**found.joint, **independent(u.joint, v)},
    )
  u, v = pairs[0]
  return found._replace(flat=u.flat & v.flat)


def mul(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """U v: a nonzero factor v scales the entries of u."""
  found = traits_lib.Traits()
  for u, v in (pairs := pair(eqn, operands)):
    found = _scaled(found, u, v, v.nonzero)
  u, v = pairs[0]
  # Distinct entries that are not zero stay distinct if one of them is zeroed.
  for one, other in pairs:
    if one.nonzero:
      found = found._replace(
        distinct=found.distinct | (one.distinct & other.cold)
      )
  return found._replace(nonzero=u.nonzero and v.nonzero, flat=u.flat & v.flat)


def div(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """U / v, where v is taken to be nonzero and finite."""
  u, v = pair(eqn, operands)[0]
  found = _scaled(traits_lib.Traits(), u, v, True)
  return found._replace(nonzero=u.nonzero, flat=u.flat & v.flat)


def _scaled(
  found: traits_lib.Traits,
  u: traits_lib.Traits,
  v: traits_lib.Traits,
  nonzero: bool,
) -> traits_lib.Traits:
  """Adds the traits of u, scaled by v that may be nonzero."""
  # Coefficients of a linear form must not depend on its own axes.
  terms = {m: d & v.flat for m, d in independent(u.linear, v).items()}
  found = found._replace(linear={**found.linear, **terms})
  if not nonzero:
    return found
  return found._replace(
    distinct=found.distinct | (u.distinct & v.flat),
    alive=found.alive | u.alive,
    joint={**found.joint, **independent(u.joint, v)},
  )


def unary(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """A function of one variable, analytic and nowhere constant."""
  x, name = operands[0].traits, eqn.primitive.name
  if name == 'integer_pow' and eqn.params['y'] == 0:
    return traits_lib.Traits()
  kept = name in _KEEP_ZERO
  return traits_lib.Traits(
    nonzero=(kept and x.nonzero) or (x.bounded and name in _POSITIVE),
    distinct=x.distinct if name in _INJECTIVE else traits_lib.NONE,
    alive=x.alive if kept else traits_lib.NONE,
    flat=x.flat,
    joint=x.joint,
    linear=x.linear if name == 'neg' else {},
  )


def same(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """The operand, in place or in another floating dtype."""
  x, floating = operands[0].traits, True
  binary = traits_lib.Traits(flat=x.flat, hot=x.hot, cold=x.cold)
  for var in (eqn.invars[0], eqn.outvars[0]):
    dtype = getattr(var.aval, 'dtype', np.dtype(bool))
    floating &= bool(jnp.issubdtype(dtype, jnp.floating))
  return x if floating else binary


def reduce_sum(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """A sum over axes of a joint density has a density; so has a linear form."""
  x, axes = operands[0].traits, frozenset(eqn.params['axes'])
  joint = {m: dims for m, dims in x.joint.items() if axes <= dims}
  return traits_lib.drop(
    traits_lib.Traits(flat=x.flat, joint=joint, linear=x.linear), axes
  )


def extremum(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits:
  """A maximum or minimum over axes is one of the entries."""
  x = operands[0].traits
  found = traits_lib.Traits(nonzero=x.nonzero, flat=x.flat)
  return traits_lib.drop(found, frozenset(eqn.params['axes']))
