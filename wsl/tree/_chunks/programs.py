"""Compiled programs for chunks, shared by all leaves that need the same one.

A program computes a leaf at n positions, or it reduces an expression over them.
"""

from collections.abc import Callable
import contextlib
import functools
import math
from typing import Any, NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from wsl.tree import _nodes, _program
from wsl.tree._chunks import flat, values
from wsl.tree._chunks import kinds as kinds_lib
from wsl.tree._reads import inputs as inputs_lib
from wsl.tree._reads import interpreter


class Entries(NamedTuple):
  """States that a kernel combines the entries of its operands, in any order.

  It may then be applied to chunks, and the results are combined.

  Attributes:
    lead: the number of leading axes of its operands that are not combined: 1
      for stacks ``[T, ...]``.
    neutral: an entry that does not change the result.
  """

  lead: int
  neutral: float


class ChunkProgram(NamedTuple):
  """A compiled program ``run(start, filled, *inputs)`` on n positions.

  Attributes:
    run: the compiled function; it returns an array.
    leads: for each input the number of its leading axes, if it is ``[*lead,
      n]``; None if it is uniform.
    positional: whether results depend on the position itself.
    wide: whether 64 bits must be enabled.
    dtype: the dtype of the result.
  """

  run: Callable[..., Any]
  leads: tuple[int | None, ...]
  positional: bool
  wide: bool
  dtype: Any


def find(
  leaf: _nodes.Computed,
  shape: tuple[int, ...],
  length: int,
  entries: Entries | None = None,
) -> ChunkProgram | None:
  """Returns the program for chunks of a leaf.

  Args:
    leaf: an expression.
    shape: S, the shape of the leaf: inputs ``[*lead, *S]`` are read in chunks.
    length: n, the number of positions of a chunk.
    entries: how the last kernel reduces its operands; None if the result has an
      entry for each position.

  Returns:
    The program; None if it mixes positions of the leaf.
  """
  program, _, kinds = leaf.linear
  if None in kinds:  # a pytree of arrays
    return None
  x64 = jax.config.read('jax_enable_x64')
  return _find(program, kinds, tuple(shape), length, entries, x64)


@functools.lru_cache(maxsize=1 << 14)
def _find(
  program: interpreter.Program,
  kinds: tuple[inputs_lib.Kind, ...],
  shape: tuple[int, ...],
  length: int,
  entries: Entries | None,
  x64: bool,
) -> ChunkProgram | None:
  """Derives the program of chunks; None if there is none."""
  traced, wide = _trace(program, kinds, entries, x64)
  with jax.enable_x64(True) if wide else contextlib.nullcontext():
    reduce = _reduction(program, entries) if entries else None
    for leads in kinds_lib.leads(kinds, shape):
      found = _flatten(traced, kinds, leads, shape, length, reduce)
      if found is not None:
        run, positional = _compiled(found, wide)
        dtype = found.out_avals[0].dtype
        return ChunkProgram(run, leads, positional, wide, dtype)
  return None


@functools.lru_cache(maxsize=1 << 14)
def _trace(
  program: interpreter.Program,
  kinds: tuple[inputs_lib.Kind, ...],
  entries: Entries | None,
  x64: bool,
) -> tuple[core.ClosedJaxpr, bool]:
  """Traces a program at the shapes of its leaves, for chunks of all lengths.

  Returns:
    The program, and whether 64 bits must be enabled.
  """
  del x64  # part of the key
  wide = _program.narrows(program, [k.abstract(k.shape) for k in kinds])
  with jax.enable_x64(True) if wide else contextlib.nullcontext():
    abstract = [_program.narrow_shape(k.abstract(k.shape)) for k in kinds]
    return jax.make_jaxpr(_traced(program, entries))(*abstract), wide


def _traced(
  program: interpreter.Program, entries: Entries | None
) -> Callable[..., Any]:
  """Returns the function to trace: up to the last kernel, if it reduces."""

  def evaluate(*inputs: Any) -> Any:
    if entries is None:
      return interpreter.evaluate(program, inputs)
    *_, (_, _, static, _) = program
    _, args, hyper = interpreter.last(program, inputs)
    return args, [hyper[name] for name in sorted(hyper.keys() - dict(static))]

  return evaluate


def _reduction(
  program: interpreter.Program, entries: Entries
) -> Callable[..., Any]:
  """Returns the last kernel, as ``reduce(window, filled, values, shapes)``."""
  *_, (kernel, args, static, traced) = program
  names = sorted(name for name, _ in traced)

  def reduce(
    window: values.Window, filled: Any, found: list[Any], shapes: list[Any]
  ) -> Any:
    values.require(len(found) == len(args) + len(names))
    valid = jax.lax.iota(np.uint32, window.length) < filled
    operands = []
    for x, shape in zip(found, shapes[: len(args)]):
      x = values.to_flat(window, x, entries.lead, shape)
      mask = jnp.broadcast_to(valid, x.shape)
      neutral = jnp.full(x.shape, entries.neutral, x.dtype)
      operands.append(jnp.where(mask, x, neutral))
    uniform = [values.whole(x) for x in found[len(args) :]]
    return kernel(*operands, **dict(static), **dict(zip(names, uniform)))

  return reduce


def _flatten(
  traced: core.ClosedJaxpr,
  kinds: tuple[inputs_lib.Kind, ...],
  leads: tuple[int | None, ...],
  shape: tuple[int, ...],
  length: int,
  reduce: Callable[..., Any] | None,
) -> core.ClosedJaxpr | None:
  """Returns the jaxpr ``(start, filled, *inputs)``; None if there is none."""
  shapes = [values.shape_of(v) for v in traced.jaxpr.outvars]

  def evaluate(start: Any, filled: Any, *args: Any) -> Any:
    window = values.Window(math.prod(shape), length, start)
    given = [
      x if lead is None else values.Flat(x, lead)
      for x, lead in zip(args, leads)
    ]
    found = flat.interpret(window, traced, given)
    if reduce is not None:
      return reduce(window, filled, found, shapes)
    lead = len(shapes[0]) - len(shape)
    return values.to_flat(window, found[0], lead, shapes[0])

  args = [
    k.abstract(k.shape if lead is None else (*k.shape[:lead], length))
    for k, lead in zip(kinds, leads)
  ]
  args = [_program.narrow_shape(x) for x in args]
  number = jax.ShapeDtypeStruct((), np.uint32)
  try:
    return jax.make_jaxpr(evaluate)(number, number, *args)
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
      (result,) = run(*args)
      return result

    start = program.jaxpr.invars[0]
    used = any(start is v for eqn in program.jaxpr.eqns for v in eqn.invars)
    _shared[key] = jax.jit(chunk), used
  return _shared[key]
