"""One function of a merge: of task vectors, of models, or a stream."""

from collections.abc import Callable, Mapping
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas, merge, tree, types


def apply(
  call: Callable[..., Any],
  base: types.Params,
  stack: Any,
  given: Mapping[str, Any],
) -> Any:
  """Applies a public function to a stack of task vectors, or to one of them.

  Args:
    call: of ``wsl.merge`` or ``wsl.scale``: a function of task vectors; of two
      models ``a`` and ``b``, or of a list of ``models``, which returns a model;
      or a stream.
    base: leaves ``[...]``.
    stack: task vectors, leaves ``[T, ...]``, or the result of a merge.
    given: all arguments of the function.

  Returns:
    The result as task vectors: a delta, a stack, or a family of T deltas.
  """
  number = operands(call)
  if not number:
    return merge.fold(call(**given), stack)
  if number == 2:
    a, b = (deltas.apply(base, _take(stack, t)) for t in range(2))
    return _difference(base, call(a, b, **given))
  if _takes_models(call):
    count = len(jax.tree.leaves(stack)[0])
    models = [deltas.apply(base, _take(stack, t)) for t in range(count)]
    return _difference(base, call(models, **given))
  return call(stack, **given)


def operands(call: Callable[..., Any]) -> int:
  """Returns the number of operands; a stream has none."""
  first = inspect.Parameter.POSITIONAL_OR_KEYWORD
  parameters = inspect.signature(call).parameters.values()
  return sum(p.kind == first for p in parameters)


def _takes_models(call: Callable[..., Any]) -> bool:
  """Returns whether a function merges a list of models, not task vectors."""
  return next(iter(inspect.signature(call).parameters)) == 'models'


def _difference(base: types.Params, model: types.Params) -> types.Delta:
  """Returns the task vector of one model."""
  return _take(deltas.stack(base, [model]), 0)


def _take(stack: types.Deltas, t: int) -> types.Delta:
  return tree.map(_row, stack, t=t)


def _row(x: types.Array, *, t: Any) -> types.Array:
  return jnp.take(x, t, axis=0)
