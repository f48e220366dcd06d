"""Compiled programs for chunks, shared by all leaves that need the same one."""

from collections.abc import Callable, Sequence
import contextlib
import functools
from typing import Any, NamedTuple

import jax
from jax.extend import core
import numpy as np

from wsl.tree import _on_demand, _program
from wsl.tree._chunks import flat, values

# Larger arrays in memory are read at the positions of a chunk, smaller ones are
# rather thresholds or weights of models: both are tried.
_LARGE = 1 << 12


class ChunkProgram(NamedTuple):
  """A compiled program ``run(start, *inputs)`` on n positions of a leaf.

  Attributes:
    run: the compiled function; it returns a tuple of arrays.
    leads: for each input the number of its leading axes, if it is ``[*lead,
      n]``; None if it is uniform.
    positional: whether results depend on the position itself.
    wide: whether 64 bits must be enabled.
  """

  run: Callable[..., tuple[Any, ...]]
  leads: tuple[int | None, ...]
  positional: bool
  wide: bool


class _Kind(NamedTuple):
  """What is known of an input before it is read; hashable.

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


def find(
  program: _program.Program,
  inputs: Sequence[Any],
  shape: tuple[int, ...],
  length: int,
) -> ChunkProgram | None:
  """Returns the program for chunks of a leaf.

  Args:
    program: an expression, see ``_on_demand.linearise``.
    inputs: its inputs: stored leaves, arrays and numbers.
    shape: S, the shape of the leaf: inputs ``[*lead, *S]`` are read in chunks.
    length: n, the number of positions of a chunk.

  Returns:
    The program; None if it mixes positions of the leaf.
  """
  kinds = tuple(map(_kind, inputs))
  return _find(
    program, kinds, tuple(shape), length, jax.config.read('jax_enable_x64')
  )


def _kind(x: Any) -> _Kind:
  """Describes an input."""
  if not hasattr(x, 'dtype'):
    return _Kind((), type(x))
  shape, weak = tuple(x.shape), bool(getattr(x, 'weak_type', False))
  stored = isinstance(x, _on_demand.Stored)
  array = isinstance(x, (np.ndarray, jax.Array))
  return _Kind(shape, x.dtype, weak, stored, array)


@functools.lru_cache(maxsize=1 << 14)
def _find(
  program: _program.Program,
  kinds: tuple[_Kind, ...],
  shape: tuple[int, ...],
  length: int,
  x64: bool,
) -> ChunkProgram | None:
  """Traces a program and derives that of its chunks; None if it has none."""
  del x64  # part of the key
  wide = _program.narrows(program, [k.abstract(k.shape) for k in kinds])
  with jax.enable_x64(True) if wide else contextlib.nullcontext():
    abstract = [k.abstract(k.shape) for k in kinds]
    evaluate = lambda *args: _program.evaluate(program, args)
    traced = jax.make_jaxpr(evaluate)(*abstract)
    ends = [k.shape[len(k.shape) - len(shape) :] == shape for k in kinds]
    for large in (_LARGE, 0):
      leads = tuple(
        len(k.shape) - len(shape) if end and _is_chunked(k, large) else None
        for k, end in zip(kinds, ends)
      )
      found = _flatten(traced, kinds, leads, shape, length)
      if found is not None:
        run, positional = _compiled(found, wide)
        return ChunkProgram(run, leads, positional, wide)
  return None


def _is_chunked(kind: _Kind, large: int) -> bool:
  """Returns True for an input to read at the positions of a chunk."""
  size = int(np.prod(kind.shape, dtype=np.int64))
  return kind.stored or (kind.array and bool(kind.shape) and size > large)


def _flatten(
  traced: core.ClosedJaxpr,
  kinds: tuple[_Kind, ...],
  leads: tuple[int | None, ...],
  shape: tuple[int, ...],
  length: int,
) -> core.ClosedJaxpr | None:
  """Returns the jaxpr of chunks ``(start, *inputs)``; None if there is none."""
  size = int(np.prod(shape, dtype=np.int64))

  def evaluate(start: Any, *args: Any) -> list[Any]:
    window = values.Window(size, length, start)
    given = [
      x if lead is None else values.Flat(x, lead)
      for x, lead in zip(args, leads)
    ]
    results = flat.interpret(window, traced, given)
    shapes = [values.shape_of(v) for v in traced.jaxpr.outvars]
    return [
      values.to_flat(window, x, len(s) - len(shape), s)
      for x, s in zip(results, shapes)
    ]

  args = [
    k.abstract(k.shape if lead is None else (*k.shape[:lead], length))
    for k, lead in zip(kinds, leads)
  ]
  try:
    return jax.make_jaxpr(evaluate)(jax.ShapeDtypeStruct((), np.uint32), *args)
  except values.NotFlatError:
    return None


_shared: dict[Any, tuple[Callable[..., Any], bool]] = {}


def _compiled(
  program: core.ClosedJaxpr, wide: bool
) -> tuple[Callable[..., Any], bool]:
  """Returns the compiled function of a jaxpr, one for all equal jaxprs.

  Leaves of different shapes have equal jaxprs, as the shape of a chunk is the
  same.
  """
  # The text of a jaxpr has all of its shapes, parameters and literals; arrays
  # in it are compared by their bytes.
  consts = [np.asarray(x) for x in program.consts]
  content = [(x.shape, x.dtype.name, x.tobytes()) for x in consts]
  key = str(program), tuple(content), jax.config.read('jax_enable_x64'), wide
  if key not in _shared:
    run = core.jaxpr_as_fun(program)

    def chunk(*args: Any) -> Any:
      return run(*args)

    start = program.jaxpr.invars[0]
    used = any(start is v for eqn in program.jaxpr.eqns for v in eqn.invars)
    _shared[key] = jax.jit(chunk), used
  return _shared[key]
