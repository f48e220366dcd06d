"""The operands of loops, and a loop with another body."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.extend import core

from wsl.jaxprs import _walk

T = TypeVar('T')


def split_scan(
  eqn: core.JaxprEqn, operands: Sequence[T]
) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
  """Splits the operands of a scan into constants, carry and scanned arrays.

  Args:
    eqn: the equation of a ``scan``; its body takes ``(*consts, *carry, *x)``
      and returns ``(*carry, *y)``.
    operands: a value for each operand.

  Example:
    >>> step = lambda c, x: (c + x, c * x)
    >>> fn = lambda xs: jax.lax.scan(step, 0.0, xs)
    >>> eqn = jax.make_jaxpr(fn)(jax.numpy.ones(3)).eqns[0]
    >>> split_scan(eqn, ['c', 'xs'])
    ([], ['c'], ['xs'])
  """
  # A scanned array has one axis more than the body's argument. This holds in
  # every release of JAX; the names of the counts in ``params`` have changed.
  body = eqn.params['jaxpr']
  same = lambda var, aval: len(_walk.shape_of(var)) == len(aval.shape)
  whole = sum(map(same, eqn.invars, body.in_avals))
  count = sum(map(same, eqn.outvars, body.out_avals))
  start = whole - count
  return operands[:start], operands[start:whole], operands[whole:]


def run_scan(
  eqn: core.JaxprEqn,
  step: Callable[[Any, Any], tuple[Any, Any]],
  carry: Any,
  xs: Any,
) -> tuple[Any, Any]:
  """Scans with another body, in the length and direction of an equation.

  Args:
    eqn: the equation of a ``scan``.
    step: a function ``(carry, x) -> (carry, y)``.
    carry: its first carry, any pytree.
    xs: arrays to scan, any pytree.

  Returns:
    The last carry and the stacked ``y``, as ``jax.lax.scan``.

  Example:
    >>> fn = lambda: jax.lax.scan(lambda c, _: (c + 1, None), 0, length=3)
    >>> eqn = jax.make_jaxpr(fn)().eqns[0]
    >>> int(run_scan(eqn, lambda c, x: (c + 2, None), 0, None)[0])
    6
  """
  options = {k: eqn.params[k] for k in ('length', 'reverse', 'unroll')}
  return jax.lax.scan(step, carry, xs, **options)


def split_while(
  eqn: core.JaxprEqn, operands: Sequence[T]
) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
  """Splits the operands of a while loop: condition, body, carry.

  Args:
    eqn: the equation of a ``while``; ``cond_jaxpr`` takes the first part and
      the carry, ``body_jaxpr`` the second part and the carry.
    operands: a value for each operand.

  Example:
    >>> fn = lambda n: jax.lax.while_loop(lambda c: c < n, lambda c: c + 1, 0)
    >>> eqn = jax.make_jaxpr(fn)(3).eqns[0]
    >>> split_while(eqn, ['n', '0'])
    (['n'], [], ['0'])
  """
  a = eqn.params['cond_nconsts']
  b = a + eqn.params['body_nconsts']
  return operands[:a], operands[a:b], operands[b:]
