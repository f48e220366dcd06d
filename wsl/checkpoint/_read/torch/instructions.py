"""The instructions of a pickle, decoded one by one."""

from collections.abc import Iterator
import os
import pickletools
from typing import Any, BinaryIO

_LONGEST_NAME = 1000
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


class RefusedError(Exception):
  """A pickle that asks for more than tensors and containers."""


class Bounded:
  """A file that refuses to read beyond its end, before it allocates memory."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self._size = os.fstat(file.fileno()).st_size
    self.readline = file.readline

  def read(self, count: int) -> bytes:
    """Returns the next bytes."""
    if count > self._size - self._file.tell():
      raise ValueError('its pickle is cut')
    return self._file.read(count)


def read(file: Any, known: frozenset[str]) -> Iterator[tuple[str, Any]]:
  """Reads instructions; one that is not known is not even decoded.

  Args:
    file: has ``read`` and ``readline``.
    known: the names of instructions.

  Raises:
    RefusedError: for any other instruction.
    ValueError: if an argument is cut.
  """
  while code := file.read(1):
    opcode = _OPCODES.get(code.decode('latin-1'))
    name = 'unknown' if opcode is None else opcode.name
    if opcode is None or name not in known:
      raise RefusedError(f'the instruction {name}')
    if name == 'GLOBAL':  # pickletools would interpret escapes
      yield name, [_line(file), _line(file)]
    else:
      yield name, opcode.arg and opcode.arg.reader(file)


def _line(file: Any) -> str:
  """Reads the name of a module or of a global."""
  line = file.readline(_LONGEST_NAME)
  if not line.endswith(b'\n'):
    raise ValueError('its pickle is cut')
  return line[:-1].decode('utf-8')
