r"""Traits of functions of one variable that JAX writes as several equations.

Softplus, :math:`\log(e^x + 1)`, is strictly increasing, and positive. JAX
computes it without overflow by maximum, absolute value and a choice, none of
which shows that. It is recognised by its equations, not by its name, which any
function may have.
"""

from collections.abc import Sequence
import functools
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp

from wsl import jaxprs
from wsl.align._find.generic import operands as operands_lib
from wsl.align._find.generic import traits as traits_lib

_CALL = 'custom_jvp_call'


def softplus(
  eqn: core.JaxprEqn, operands: Sequence[operands_lib.Operand]
) -> traits_lib.Traits | None:
  """Returns the traits of ``log(exp(x) + exp(0))``; ``None`` if it is not it.

  Args:
    eqn: a call.
    operands: its operands.
  """
  if eqn.primitive.name != _CALL or len(operands) != 2:
    return None
  x, zero = operands
  shape = jaxprs.shape_of(eqn.outvars[0])
  if (
    not operands_lib.uniform(zero, 0)
    or x.shape != shape
    or not x.traits.bounded
  ):
    return None
  avals: list[Any] = [var.aval for var in eqn.invars]
  wanted = _equations(*((aval.shape, aval.dtype) for aval in avals))
  if str(jaxprs.called(eqn)) != wanted:
    return None
  found = x.traits._replace(nonzero=True, alive=traits_lib.NONE, linear={})
  return traits_lib.close(found, len(shape))


@functools.cache
def _equations(*forms: tuple[tuple[int, ...], Any]) -> str:
  """Returns the equations of ``jnp.logaddexp``, as text."""
  shapes = [jax.ShapeDtypeStruct(*form) for form in forms]
  jaxpr: Any = jax.make_jaxpr(jnp.logaddexp)(*shapes).jaxpr
  return next(
    (
      str(jaxprs.called(eqn))
      for eqn in jaxpr.eqns
      if eqn.primitive.name == _CALL
    ),
    '',
  )
