"""Tracing a function from shapes, without its dead equations."""

from collections.abc import Callable, Sequence
import itertools
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from wsl import tree, types


def leaf_shapes(
  params: types.Params, *, caller: str
) -> dict[str, tuple[int, ...]]:
  """Returns the shape of every leaf by name.

  Args:
    params: a pytree of arrays or of their shapes.
    caller: the public function to name in the error message.

  Raises:
    ValueError: if a leaf is not an array.

  Example:
    >>> leaf_shapes({'w': jax.ShapeDtypeStruct((2, 3), 'float32')}, caller='f')
    {'w': (2, 3)}
  """
  for name, leaf in tree.named(params).items():
    if not _is_array(leaf):
      raise ValueError(
        f"{caller}: leaf '{name}' of params is a {type(leaf).__name__}, not "
        'an array: pass it to apply_fn in another way (functools.partial)'
      )
  return {name: tuple(x.shape) for name, x in tree.named(params).items()}


def bind_static(
  apply_fn: Callable[..., Any], inputs: Sequence[Any]
) -> tuple[Callable[[types.Params, list[Any]], Any], list[Any]]:
  """Fixes the arguments that are not arrays, such as flags and strings.

  Args:
    apply_fn: a function ``apply_fn(params, *inputs)``.
    inputs: pytrees whose leaves are arrays, shapes or any other object.

  Returns:
    A function ``call(params, arrays)`` and the arrays among the leaves of
    ``inputs``, in tree order.

  Example:
    >>> fn = lambda p, x, train: p * x if train else x
    >>> call, arrays = bind_static(fn, (jax.numpy.ones(2), True))
    >>> len(arrays), call(3.0, arrays).tolist()
    (1, [3.0, 3.0])
  """
  leaves, structure = jax.tree.flatten(tuple(inputs))
  is_array = [*map(_is_array, leaves)]
  arrays = list(itertools.compress(leaves, is_array))

  def call(params: types.Params, arrays: list[Any]) -> Any:
    given = iter(arrays)
    filled = [next(given) if a else x for x, a in zip(leaves, is_array)]
    return apply_fn(params, *jax.tree.unflatten(structure, filled))

  return call, arrays


def trace(
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: Sequence[Any],
  *,
  caller: str,
) -> core.ClosedJaxpr:
  """Traces a function from shapes and removes dead equations.

  Args:
    apply_fn: a function ``apply_fn(params, *inputs)`` that returns a pytree of
      arrays.
    params: a pytree of arrays or shapes.
    inputs: further arguments; leaves that are not arrays are constants.
    caller: the public function to name in error messages.

  Returns:
    The jaxpr. Its arguments are the leaves of ``params``, then the arrays of
    ``inputs``.

  Raises:
    ValueError: if the function returns anything but arrays, or if its control
      flow depends on the values of its arguments.

  Example:
    >>> import jax.numpy as jnp
    >>> dead = lambda p, x: (jnp.sin(p), p * x)[1]
    >>> one = jnp.ones(())
    >>> [e.primitive.name for e in trace(dead, one, (one,), caller='f').eqns]
    ['mul']
  """
  call, arrays = bind_static(apply_fn, inputs)

  def abstract(x: Any) -> Any:
    dtype = x.dtype
    if not jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
      dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jax.ShapeDtypeStruct(x.shape, dtype)

  def checked(*args: Any) -> Any:
    out = call(*args)
    for name, leaf in tree.named(out).items():
      if not hasattr(leaf, 'shape') and not isinstance(leaf, (int, float)):
        raise ValueError(
          f"{caller}: the function returns '{name}', a "
          f'{type(leaf).__name__}: return arrays only'
        )
    return out

  args = jax.tree.map(abstract, (params, arrays))
  try:
    closed = jax.make_jaxpr(checked)(*args)
  except (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
  ) as error:
    first = str(error).strip().splitlines()[0]
    raise ValueError(
      f'{caller}: the function needs the values of its arguments, not only '
      f'their shapes ({first}): fix what decides with functools.partial, and '
      'use jnp.where or lax.cond in place of Python conditions'
    ) from error
  jaxpr: Any = closed.jaxpr
  alive, _ = partial_eval.dce_jaxpr(
    jaxpr, [True] * len(jaxpr.outvars), instantiate=True
  )
  return core.ClosedJaxpr(alive, closed.consts)


def _is_array(x: Any) -> bool:
  return hasattr(x, 'shape') and hasattr(x, 'dtype')
