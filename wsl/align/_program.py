"""Traces the function that is to be read, and refuses what cannot be."""

from collections.abc import Callable, Sequence
import itertools
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from wsl import tree, types


def shape(name: str, leaf: Any) -> tuple[int, ...]:
  if not hasattr(leaf, 'shape') or not hasattr(leaf, 'dtype'):
    raise ValueError(
      f"find_symmetry: leaf '{name}' of params is a {type(leaf).__name__}, not "
      'an array: pass it to apply_fn in another way (functools.partial)'
    )
  return tuple(leaf.shape)


def trace(
  apply_fn: Callable[..., Any], params: types.Params, inputs: Sequence[Any]
) -> core.ClosedJaxpr:
  """Traces the function, without what its results do not need."""
  call, arrays = split(apply_fn, inputs)

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
          f"find_symmetry: the function returns '{name}', a "
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
      'find_symmetry: the function needs the values of its arguments, not only '
      f'their shapes ({first}): fix what decides with functools.partial, and '
      'use jnp.where or lax.cond in place of Python conditions'
    ) from error
  jaxpr: Any = closed.jaxpr
  alive, _ = partial_eval.dce_jaxpr(
    jaxpr, [True] * len(jaxpr.outvars), instantiate=True
  )
  return core.ClosedJaxpr(alive, closed.consts)


def split(
  apply_fn: Callable[..., Any], inputs: Sequence[Any]
) -> tuple[Callable[[types.Params, list[Any]], Any], list[Any]]:
  """Returns a function of the parameters and the arrays among the inputs."""
  leaves, structure = jax.tree.flatten(tuple(inputs))
  is_array = [hasattr(x, 'shape') and hasattr(x, 'dtype') for x in leaves]
  arrays = list(itertools.compress(leaves, is_array))

  def call(params: types.Params, arrays: list[Any]) -> Any:
    given = iter(arrays)
    filled = [next(given) if a else x for x, a in zip(leaves, is_array)]
    return apply_fn(params, *jax.tree.unflatten(structure, filled))

  return call, arrays
