"""What the kernels of a compiled program read and write, from its text."""

from collections.abc import Iterator
import math
import re
from typing import Any

_BITS = re.compile(r'([a-z]+?)(\d*)\[([\d,]*)\]')
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) .*\{$', re.M)
_LINE = re.compile(r'^\s+(?:ROOT )?%([\w.\-]+) = (.*?) ([\w\-]+)\((.*?)\)(.*)$')
_KERNELS = ('fusion', 'copy', 'sort', 'reduce', 'concatenate', 'transpose')
_ENTRIES = 0.02  # of a stack; less is not listed


def kernels(text: str, stack: int) -> dict[str, Any]:
  """Counts kernels, and the bytes that they read and write.

  Args:
    text: the optimised HLO.
    stack: the bytes of the operands.

  Returns:
    The number of kernels, how many of them differ, and for each computation
    (the program, bodies of loops, branches) the stacks read and written. An
    operand counts as a whole, also where a kernel reads a part of it.
  """
  bodies = dict(_computations(text))
  fused = set(re.findall(r'calls=%?([\w.\-]+)', text))
  different, number, traffic = set(), 0, {}
  for name, lines in bodies.items():
    if name in fused:
      continue
    shapes: dict[str, str] = {}
    read = written = 0
    for line in filter(None, map(_LINE.match, lines)):
      result, shape, operation, operands, rest = line.groups()
      shapes[result] = shape
      if operation not in _KERNELS:
        continue
      given = dict.fromkeys(re.findall(r'%([\w.\-]+)', operands))
      read += sum(_size(shapes.get(x, '')) for x in given)
      written += _size(shape)
      called = re.search(r'calls=%?([\w.\-]+)', rest)
      body = bodies.get(called[1], []) if called else [operation, shape]
      different.add('\n'.join(map(_anonymous, body)))
      number += 1
    if read + written > _ENTRIES * stack:
      traffic[name] = (round(read / stack, 2), round(written / stack, 2))
  return {'kernels': number, 'different': len(different), 'stacks': traffic}


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
  """Yields the name and the lines of each computation."""
  heads = list(_COMPUTATION.finditer(text))
  ends = [head.start() for head in heads[1:]] + [len(text)]
  for head, end in zip(heads, ends):
    yield head[1], text[head.end() : end].splitlines()


def _size(shape: str) -> int:
  """Returns the bytes of an array or a tuple."""
  size = lambda bits, axes: (
    int(bits or 8) // 8 * math.prod(map(int, filter(None, axes.split(','))))
  )
  return sum(size(bits, axes) for _, bits, axes in _BITS.findall(shape))


def _anonymous(line: str) -> str:
  """Returns an instruction without names."""
  return re.sub(r'%[\w.\-]+|metadata=\{.*?\}|backend_config=.*', '', line)
