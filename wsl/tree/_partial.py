"""Functions that carry arrays, as pytrees."""

from typing import Any

import jax


def partial(fn: Any) -> jax.tree_util.Partial:
  """Makes a function a pytree, unless it is one.

  What a ``jax.tree_util.Partial`` binds is an argument of a compiled program,
  not a constant in it, so that one program serves all arrays that are bound.

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
