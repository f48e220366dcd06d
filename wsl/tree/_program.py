"""Compiled programs of kernels, and the leaves of 64 bits among their inputs.

Without ``jax_enable_x64`` JAX rounds every array of 64 bits that it is given,
without a word: float64 to float32, int64 to its low 32 bits. A program with
such a leaf is therefore compiled and executed with 64 bits enabled, and its
results of 64 bits return to the host as numpy arrays, which JAX does not round
until they are given to it again.
"""

from collections.abc import Callable
import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl.tree._reads import gpu, interpreter


def run(program: interpreter.Program, inputs: list[Any]) -> Any:
  """Executes a program: float64 and int64 leaves keep their dtype.

  Raises:
    ValueError: if a leaf would be narrowed, in a trace without x64; or if the
      program fails and a leaf is sharded over a mesh of explicit axes.
  """
  try:
    return _run_wide(program, inputs)
  except Exception as error:
    _check_axes(inputs, error)
    raise


def run_each(
  program: interpreter.Program, inputs: list[list[Any]], stack: bool
) -> Any:
  """Executes a program on a GPU for each of several lists of inputs, at once.

  Args:
    program: the program.
    inputs: lists of inputs of the same kinds, without tracers.
    stack: whether the results are stacked, or else a list.
  """
  execute = lambda program, inputs: gpu.run_each(program, inputs, stack)
  try:
    wide = narrows(program, inputs[0])
    return _outside(execute, program, inputs, wide=wide)
  except Exception as error:
    _check_axes(inputs, error)
    raise


def _run_wide(program: interpreter.Program, inputs: list[Any]) -> Any:
  """Executes a program, with 64 bits enabled if it needs them."""
  wide, on_gpu = narrows(program, inputs), jax.default_backend() == 'gpu'
  if not (wide or on_gpu):
    return interpreter.run(program, inputs)
  if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(inputs)):
    _check_first(program, inputs)
    return interpreter.run(program, inputs)
  execute = gpu.run if on_gpu else interpreter.run
  return _outside(execute, program, inputs, wide=wide)


def _outside(
  execute: Callable[..., Any],
  program: interpreter.Program,
  inputs: list[Any],
  *,
  wide: bool,
) -> Any:
  """Executes a program of concrete inputs outside of any trace.

  Under jax.ensure_compile_time_eval the kernel's own constants would be
  computed while it is traced and lowered, each by a program that is compiled
  for it.
  """
  with jax.core.eval_context():
    if not wide:
      return execute(program, inputs)
    with jax.enable_x64(True):
      result = execute(program, inputs)
  return jax.tree.map(to_host, result)  # outside, where 64 bits are narrowed


def shape_of(program: interpreter.Program, inputs: list[Any]) -> Any:
  """Returns the shape and dtype of the result of ``run``."""
  return _of_shapes(interpreter.run.eval_shape, program, inputs)


def jaxpr_of(program: interpreter.Program, inputs: list[Any]) -> Any:
  """Returns the jaxpr that ``run`` executes, given shapes."""
  return _of_shapes(interpreter.run.trace, program, inputs).jaxpr


def _of_shapes(
  function: Callable[..., Any],
  program: interpreter.Program,
  inputs: list[Any],
) -> Any:
  """Calls a function of a program and shapes, with 64 bits as ``run``."""
  wide = narrows(program, inputs)
  if not wide:
    inputs = jax.tree.map(narrow_shape, inputs)
  with jax.enable_x64(True) if wide else contextlib.nullcontext():
    try:
      return function(program, inputs)
    except Exception as error:
      _check_axes(inputs, error)
      raise


def narrow_shape(x: Any) -> Any:
  """Returns a hyperparameter's traced type as JAX would narrow the array."""
  if not isinstance(x, jax.ShapeDtypeStruct) or not narrowed(x.dtype):
    return x
  return x.update(dtype=jax.dtypes.canonicalize_dtype(x.dtype))


def narrowed(dtype: Any) -> bool:
  """Returns True if JAX would narrow a dtype: 64 bits, and x64 is off.

  Raises:
    ValueError: for a dtype that JAX does not have, such as float128.

  Example:
    >>> narrowed(np.float32)
    False
  """
  if not isinstance(dtype, np.dtype):
    return False  # a random key
  _check_known(dtype)
  return jax.dtypes.canonicalize_dtype(dtype) != dtype


def to_host(x: Any) -> Any:
  """Returns an array that JAX would narrow as a numpy array."""
  return np.asarray(x) if narrowed(x.dtype) else x


def narrows(program: interpreter.Program, inputs: list[Any]) -> bool:
  """Returns True if JAX would narrow a leaf, or a dtype that is asked for."""
  # Hyperparameters are not leaves: a coefficient of np.float64 is rounded to
  # the dtype of its leaf, as a Python number is.
  leaves = {i for _, args, _, _ in program for i in args if i >= 0}
  asked = [v for _, _, static, _ in program for _, v in static]
  return any(
    narrowed(x.dtype)
    for i in leaves
    for x in jax.tree.leaves(inputs[i])
    if hasattr(x, 'dtype')
  ) or any(isinstance(v, np.dtype) and narrowed(v) for v in asked)


def _check_axes(inputs: list[Any], error: Exception) -> None:
  """Explains an error of leaves whose mesh has explicit axes.

  Over such axes products, sorts and reshapes across shards are errors in JAX.
  """
  for x in jax.tree.leaves(inputs):
    mesh = jax.typeof(x).sharding.mesh if isinstance(x, jax.Array) else None
    if mesh and jax.sharding.AxisType.Explicit in mesh.axis_types:
      raise ValueError(
        f'a leaf is sharded over a mesh of explicit axes {mesh.axis_names}, '
        'the default of jax.make_mesh: shard it over a mesh of mesh.make'
      ) from error


def _check_first(program: interpreter.Program, inputs: list[Any]) -> None:
  """Checks that no kernel's first operand, its leaf, would be narrowed.

  The other operands, weights for example, are rounded to the leaf's dtype.
  """
  for _, args, _, _ in program:
    first = inputs[args[0]] if args and args[0] >= 0 else None
    for x in jax.tree.leaves(first):
      if hasattr(x, 'dtype') and narrowed(x.dtype):
        raise ValueError(
          f'a leaf of {x.dtype}{list(x.shape)} inside jit would be narrowed to '
          f'{jax.dtypes.canonicalize_dtype(x.dtype)}: set jax_enable_x64, call '
          'it outside jit, or tree.cast the model'
        )


def is_float(x: Any) -> bool:
  """Returns True for an array of floats or complex numbers.

  Raises:
    ValueError: for a dtype that JAX does not have, such as float128, and for a
      number of Python.

  Example:
    >>> is_float(np.zeros(2, np.complex64)), is_float(np.zeros(2, int))
    (True, False)
  """
  if not hasattr(x, 'dtype'):
    raise ValueError(
      f'a leaf is a {type(x).__name__}, not an array: give jnp.asarray of it'
    )
  _check_known(x.dtype)
  return bool(jnp.issubdtype(x.dtype, jnp.inexact))


# They are float64 and complex128 again where the C compiler has no wider type.
_EXTENDED = {np.dtype(x) for x in (np.longdouble, np.clongdouble)} - {
  np.dtype(x) for x in (np.float64, np.complex128)
}


def _check_known(dtype: Any) -> None:
  """Checks that JAX has a dtype of floats."""
  if dtype in _EXTENDED:
    cast = 'float64' if dtype.kind == 'f' else 'complex128'
    raise ValueError(
      f'an array is {dtype}, which JAX does not have: cast it to {cast}'
    )
