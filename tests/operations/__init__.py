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
def traced(
  name: str, dtype: Any, first: int = 0, step: int = 1
) -> dict[str, jax.stages.Traced]:
  """Returns the traced operations of related rooms, or each ``step``-th."""
  some = list(room(name, dtype).items())[first::step]
  return {op: jax.jit(fn).trace(*args) for op, (fn, args) in some}


def table(dtype: Any) -> inputs.Table:
  """Returns all operations."""
  return functools.reduce(lambda a, b: a | b, (room(n, dtype) for n in ROOMS))
