"""Methods of arrays, applied to factors: they get the products.

A method that is not linear, such as TIES, has to see the entries of
:math:`s B A`: applied to A and to B it gives a value that no task vector has.
"""

from collections.abc import Callable
import functools
from typing import Any, ParamSpec, TypeVar

import jax

from wsl import tree, types
from wsl.deltas import _dense, _factors

P = ParamSpec('P')
R = TypeVar('R')


def on_stacks(method: Callable[P, R]) -> Callable[P, R]:
  """Lets a method of stacked arrays take stacked factors, as their products.

  The products are leaves on demand: one leaf at a time is computed, together
  with the method, and none is stored for the whole model. In a trace they are
  arrays.

  Args:
    method: its first argument is a stack, every leaf ``[T, ...]``.

  Returns:
    The method; its result is in memory if the arguments are.

  Raises:
    ValueError: from the method, if factors are not stacked, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(1,), columns=(0,))
    >>> stack = adapters.Factors(jnp.asarray([[[1.0, 2.0]], [[3.0, 0.0]]]),
    ...   jnp.ones((2, 1, 1)), jnp.ones(2), (1, 2), view)
    >>> largest = lambda x: jax.tree.map(lambda v: tree.read(v).max(0), x)
    >>> on_stacks(largest)({'w': stack})['w'].tolist()
    [[3.0, 2.0]]
  """

  @functools.wraps(method)
  def call(*args: P.args, **kwargs: P.kwargs) -> R:
    if args and _has_factors(args[0]):
      check_stacked(method.__name__, args[0])
    return _call(method, args, kwargs)

  return call


def on_models(method: Callable[P, R]) -> Callable[P, R]:
  """Lets a method of models or task vectors take factors, as their products.

  Args:
    method: its arguments are trees with leaves ``[...]``.

  Returns:
    The method, as ``on_stacks``.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(1,), columns=(0,))
    >>> one = adapters.Factors(jnp.ones((1, 2)), jnp.ones((1, 1)), 3.0, (1, 2),
    ...                        view)
    >>> on_models(lambda x: tree.read(x['w']) + 1)({'w': one}).tolist()
    [[4.0, 4.0]]
  """

  @functools.wraps(method)
  def call(*args: P.args, **kwargs: P.kwargs) -> R:
    return _call(method, args, kwargs)

  return call


def check_stacked(function: str, deltas: types.Tree) -> None:
  """Checks that all factors are those of stacks, and fit their leaves.

  Args:
    function: the public function, as the user called it.
    deltas: stacked task vectors.

  Raises:
    ValueError: naming the leaf.

  Example:
    >>> check_stacked('ties', {'w': 0.5})
  """
  for name, x in tree.named(deltas, is_leaf=_factors.is_factors).items():
    if not _factors.is_factors(x):
      continue
    _factors.check_shapes(function, name, x)
    if not x.stacked:
      raise ValueError(
        f"{function}: leaf '{name}' holds the factors of one task vector: "
        'stack those of all by adapters.stack'
      )


def _call(method: Callable[..., R], args: Any, kwargs: dict[str, Any]) -> R:
  """Calls a method with products in place of factors."""
  values = [*args, *kwargs.values()]
  factored = [x for x in values if _has_factors(x)]
  if not factored:
    return method(*args, **kwargs)
  # In a trace the compiler decides what is stored.
  traced = tree.is_traced(factored)
  replace = _dense.dense if traced else _dense.on_demand
  given = [replace(x) if _has_factors(x) else x for x in values]
  result = method(
    *given[: len(args)], **dict(zip(kwargs, given[len(args) :], strict=True))
  )
  lazy = traced or tree.on_demand([x for x in values])
  return result if lazy else tree.read(result)


def _has_factors(x: Any) -> bool:
  """Returns True for a tree with a leaf in factors."""
  leaves = jax.tree.leaves(x, is_leaf=_factors.is_factors)
  return any(map(_factors.is_factors, leaves))
