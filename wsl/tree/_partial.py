"""Functions that bind arrays, as pytrees."""

from typing import Any

import jax


def partial(fn: Any) -> jax.tree_util.Partial:
  """Wraps a function as a pytree, unless it is one.

  Arrays bound by a ``jax.tree_util.Partial`` are arguments of a compiled
  program, not constants in it: one program serves all bound arrays of a shape.

  Args:
    fn: a hashable function, or a ``Partial``, which stays as it is.

  Returns:
    A ``Partial``.

  Example:
    >>> import operator
    >>> bound = jax.tree_util.Partial(operator.mul, 3.0)
    >>> partial(bound) is bound, partial(operator.neg)(2)
    (True, -2)
  """
  is_one = isinstance(fn, jax.tree_util.Partial)
  return fn if is_one else jax.tree_util.Partial(fn)
