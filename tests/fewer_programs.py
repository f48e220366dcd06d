"""Most of the time of the tests is the compilation of small programs: fewer.

What is replaced are private functions of JAX. Where a release lacks them, the
tests are the same, and slower.
"""

import itertools
from typing import Any

import jax
import numpy as np

try:
  from jax._src import pjit
  from jax._src.interpreters import mlir
  from jax._src.lax.lax import convert_element_type_p, stage_p
except ImportError:
  pjit = mlir = stage_p = convert_element_type_p = None


def share_contexts(programs: int = 200) -> None:
  """Lets the next ``programs`` lowerings share a context of MLIR.

  JAX makes one for each program: a sixth of the time of a small one. A context
  keeps all types and names that it has seen, so it is renewed. A program that
  is compiled while another one is lowered has a context of its own: the key of
  the compilation cache is of a clone, and MLIR inserts a clone into the module
  that is built in the same context.
  """
  make, numbers, current = mlir.make_ir_context, itertools.count(), []

  def shared() -> Any:
    if mlir.ir.Context.current is not None:
      return make()
    if next(numbers) % programs == 0:
      current[:] = [make()]
    return current[0]

  mlir.make_ir_context = shared


def copy_arrays() -> None:
  """Lets ``jnp.asarray`` copy an array of numpy to a device.

  JAX 0.10 compiles the identity for each shape and dtype.
  """
  run_stage, run_convert = stage_p.impl, convert_element_type_p.impl

  def is_array(x: Any) -> bool:
    of_numpy = isinstance(x, np.ndarray | np.generic)
    # In the context of a mesh a program leaves its result on all devices.
    return of_numpy and jax.sharding.get_abstract_mesh().empty

  def stage(x: Any) -> Any:
    return jax.device_put(x, may_alias=False) if is_array(x) else run_stage(x)

  def convert(x: Any, **params: Any) -> Any:
    plain = not params['weak_type'] and params['sharding'] is None
    if plain and is_array(x) and x.dtype == params['new_dtype']:
      y = jax.device_put(x, may_alias=False)
      if y.dtype == x.dtype:
        return y
    return run_convert(x, **params)

  stage_p.def_impl(stage)
  convert_element_type_p.def_impl(convert)


def keep_programs(capacity: int = 1 << 15) -> None:
  """Lets functions that are compiled from here on keep more programs.

  All functions share two caches of 8192 programs. A process that runs a half of
  the tests fills them, and then tests cannot count what is compiled.
  """
  for kind in ('fun_only', 'explicit_attributes'):
    setattr(pjit, f'_cpp_pjit_cache_{kind}', pjit.make_jit_cpp_cache(capacity))


def install() -> None:
  """Replaces what there is, and computes no key for a cache that is not."""
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update('jax_enable_compilation_cache', False)
  if hasattr(mlir, 'make_ir_context'):
    share_contexts()
  if stage_p is not None:
    copy_arrays()
  if hasattr(pjit, 'make_jit_cpp_cache'):
    keep_programs()
