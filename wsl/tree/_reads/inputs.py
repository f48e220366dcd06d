"""Inputs of programs, as they are known before they are read."""

from collections.abc import Callable
import contextlib
import functools
from typing import Any, NamedTuple

import jax

from wsl.tree import _program
from wsl.tree._reads import interpreter


class Kind(NamedTuple):
  """An input, hashable.

  Attributes:
    shape: its shape.
    dtype: its dtype; the type of a number of Python.
    weak: whether its dtype yields to that of others.
    stored: whether it is read.
    array: whether it is an array in memory.
  """

  shape: tuple[int, ...]
  dtype: Any
  weak: bool = False
  stored: bool = False
  array: bool = False

  def abstract(self, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Returns the traced type, at another shape."""
    if isinstance(self.dtype, type):
      aval = jax.typeof(self.dtype(0))
      return jax.ShapeDtypeStruct((), aval.dtype, weak_type=aval.weak_type)
    return jax.ShapeDtypeStruct(shape, self.dtype, weak_type=self.weak)


@functools.lru_cache(maxsize=1 << 14)
def shape_of(
  program: interpreter.Program, kinds: tuple[Kind, ...], x64: bool
) -> Any:
  """Returns the shape and dtype of the result of a program."""
  del x64  # part of the key
  return of_kinds(_program.shape_of, program, kinds)


def of_kinds(
  function: Callable[..., Any],
  program: interpreter.Program,
  kinds: tuple[Kind, ...],
) -> Any:
  """Calls a function of a program and the traced types of its inputs."""
  abstract = lambda: [kind.abstract(kind.shape) for kind in kinds]
  wide = _program.narrows(program, abstract())
  with jax.enable_x64(True) if wide else contextlib.nullcontext():
    return function(program, abstract())
