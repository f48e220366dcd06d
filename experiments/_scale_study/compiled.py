"""Counts of a compiled program: bytes, operations, exchanges."""

from collections.abc import Callable
import math
import re
from typing import Any

import jax

from experiments._scale_study import costs

_RESULT = re.compile(
  r' = (.*?) (all-reduce|all-gather|all-to-all|collective-permute'
  r'|reduce-scatter)(?:-done)?\('
)
_ARRAY = re.compile(r'([a-z]+?)(\d*)\[([\d,]*)\]')

# Bytes that a device sends for R bytes of result among D devices, by the ring
# algorithms: an all-reduce is a reduce-scatter and an all-gather.
_SENT: dict[str, Callable[[float, int], float]] = {
  'all-reduce': lambda r, d: 2 * r * (d - 1) / d,
  'all-gather': lambda r, d: r * (d - 1) / d,
  'all-to-all': lambda r, d: r * (d - 1) / d,
  'reduce-scatter': lambda r, d: r * (d - 1),
  'collective-permute': lambda r, d: r,
}


def counts(program: jax.stages.Compiled, devices: int) -> costs.Cost:
  """Counts what a compiled program takes on each device.

  Args:
    program: from ``jax.jit(...).lower(...).compile()``.
    devices: D.

  Returns:
    Bytes and operations from the compiler's analyses, exchanges from the text.
    The body of a loop counts once; ``operations`` are all, those of products
    too; decompositions are not counted.
  """
  analysis: Any = program.cost_analysis()
  memory: Any = program.memory_analysis()
  link, number = exchanges(program.as_text() or '', devices)
  return costs.Cost(
    memory=analysis['bytes accessed'],
    operations=analysis.get('flops', 0.0),
    link=link,
    collectives=number,
    arguments=memory.argument_size_in_bytes,
    results=memory.output_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
  )


def exchanges(text: str, devices: int) -> tuple[float, int]:
  """Returns the bytes that a device sends, and the number of collectives.

  Args:
    text: the optimised HLO.
    devices: D.
  """
  found = _RESULT.findall(text)
  sent = sum(_SENT[kind](_bytes(shape), devices) for shape, kind in found)
  return sent, len(found)


def _bytes(shape: str) -> float:
  """Returns the bytes of an array or a tuple of arrays."""
  size = lambda bits, axes: (
    int(bits or 8) / 8 * math.prod(map(int, filter(None, axes.split(','))))
  )
  return sum(size(bits, axes) for _, bits, axes in _ARRAY.findall(shape))
