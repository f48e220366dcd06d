"""Execution of programs on a GPU, outside of traces."""

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl.tree._reads import interpreter

_NUMBERS = (int, float, complex)
_SMALL = 2**14  # bytes of arrays that are transferred to a GPU once
# On a GPU XLA compiles and times tens of kernels for each product of a new
# size. That takes seconds, and a program outside of jit runs a few times.
_UNTUNED = {
  'xla_gpu_autotune_level': 0,
  'xla_gpu_enable_triton_gemm': False,
}


def _evaluate_each(
  program: interpreter.Program, inputs: Sequence[Sequence[Any]], stack: bool
) -> Any:
  """Executes a program, which is traced once, for each list of inputs."""
  found = [interpreter.run(program, own) for own in inputs]
  return jnp.stack(found) if stack else found


_run = jax.jit(
  interpreter.evaluate, static_argnums=0, compiler_options=_UNTUNED
)
_run_each = jax.jit(
  _evaluate_each, static_argnums=(0, 2), compiler_options=_UNTUNED
)


def run(program: interpreter.Program, inputs: Sequence[Any]) -> Any:
  """Executes a program without tuning of its kernels.

  The numbers and small arrays that all leaves share are transferred once: a
  transfer takes as long as a kernel of a leaf.
  """
  return _run(program, _on_device(inputs))


def run_each(
  program: interpreter.Program, inputs: Sequence[Sequence[Any]], stack: bool
) -> Any:
  """Executes a program for each of several lists of inputs, as ``run``."""
  return _run_each(program, [_on_device(own) for own in inputs], stack)


def is_small(x: Any) -> bool:
  """Returns True for an array of numpy that is transferred once."""
  return isinstance(x, (np.ndarray, np.generic)) and x.nbytes <= _SMALL


def _on_device(inputs: Sequence[Any]) -> list[Any]:
  """Returns the inputs with numbers and small arrays on the device."""
  x64 = jax.config.read('jax_enable_x64')
  return [_transfer(x, x64) for x in inputs]


def _transfer(x: Any, x64: bool) -> Any:
  """Returns a number or a small numpy array on the device, from a cache."""
  if type(x) in _NUMBERS:
    # 0.0 equals -0.0, and 1 equals 1.0: neither replaces the other.
    return _transferred(_NUMBERS.index(type(x)), repr(x), x64)
  if is_small(x):
    return _transferred((x.dtype, x.shape), x.tobytes(), x64)
  return x


@functools.lru_cache(maxsize=256)
def _transferred(kind: Any, data: Any, x64: bool) -> jax.Array:
  """Returns the array of a number's representation, or of bytes."""
  del x64  # part of the key: a Python number is of 32 bits without it
  if isinstance(kind, int):
    return jnp.asarray(_NUMBERS[kind](data))
  dtype, shape = kind
  return jnp.asarray(np.frombuffer(data, dtype).reshape(shape))
