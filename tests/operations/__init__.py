"""The public operations that can be traced, each with a small call.

``table(dtype)`` gives, by name, a function of arrays and its arguments, for
tests and benchmarks that treat all operations alike: the precision of products,
lowering for other platforms, equality of devices.
"""

import functools
from typing import Any

import jax

from tests.operations import aligning, inputs, merging, scaling, stitching

ROOMS = {
  'merging': merging,
  'scaling': scaling,
  'aligning': aligning,
  'stitching': stitching,
}


def build(name: str, dtype: Any) -> inputs.Table:
  """Returns the operations of related rooms, with arguments of a dtype."""
  return functools.reduce(lambda a, b: a | b, ROOMS[name].parts(dtype))


# Most of the time of a table is the compilation of what makes its arguments.
room = functools.cache(build)


@functools.cache
def trace(name: str, dtype: Any, op: str) -> jax.stages.Traced:
  """Traces an operation, once for all tests."""
  fn, args = room(name, dtype)[op]
  return jax.jit(fn).trace(*args)


def traced(
  name: str, dtype: Any, first: int = 0, step: int = 1
) -> dict[str, jax.stages.Traced]:
  """Returns the traced operations of related rooms, or each ``step``-th."""
  return {
    op: trace(name, dtype, op) for op in [*room(name, dtype)][first::step]
  }


def table(dtype: Any) -> inputs.Table:
  """Returns all operations."""
  return functools.reduce(lambda a, b: a | b, (room(n, dtype) for n in ROOMS))
