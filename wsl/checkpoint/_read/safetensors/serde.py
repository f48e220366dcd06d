"""JSON as serde_json in Rust reads it, one member of an object after the other.

It differs from Python's ``json`` in the corners: no value is NaN or beyond
float64; ``-0`` and ``1.0`` are no integers; a string has no half of a surrogate
pair; nesting ends at 127.
"""

import json
import math
import re
from typing import Any

_MAX_DEPTH = 127
# What json reads as an integer, and serde_json as the float -0.
_MINUS_ZERO = re.compile(r'-0(?![0-9.eE])')
_SPACE = re.compile(r'[ \t\n\r]*')


class Members:
  """The members of a JSON object; objects in it become tuples of pairs.

  Attributes:
    text: the object.
    at: the place of the next member; the length of the text after the last.
  """

  def __init__(self, text: str) -> None:
    """Opens the object.

    Raises:
      ValueError: if the text is no object.
    """
    self.text, self.at = text, self._skip(text, 0, '{')
    if self.at == len(text):
      raise ValueError('no end')
    if text.startswith('}', self.at):
      self.at = self._end()
    # A search for the text first: it is a hundred times faster.
    minus = '-0' in text and _MINUS_ZERO.search(text)
    self._escapes = '\\u' in text
    self._decode = json.JSONDecoder(
      # A C function: it costs no Python call.
      object_pairs_hook=tuple,
      parse_constant=_refuse,
      parse_float=_number,
      parse_int=_integer if minus else None,
    ).raw_decode

  def next(self) -> tuple[str, Any]:
    """Reads the member at ``at``: its name and value; lists stay lists.

    Raises:
      ValueError: if serde_json would refuse it; depth and the size of numbers
        in unknown fields are left to ``check_unknown``.
      RecursionError: if it is too deep.
    """
    text, start = self.text, self.at
    if not text.startswith('"', start):
      raise ValueError('no name')
    name, at = self._decode(text, start)
    value, at = self._decode(text, self._skip(text, at, ':'))
    if self._escapes and text.find('\\u', start, at) >= 0:
      # json accepts half of a surrogate pair
      json.dumps([name, value], ensure_ascii=False).encode('utf-8')
    at = self._skip(text, at)
    if text.startswith(',', at):
      self.at = self._skip(text, at, ',')
      if self.at == len(text):
        raise ValueError('no end')
    else:
      self.at = at
      self.at = self._end()
    return name, value

  def _end(self) -> int:
    """Returns the end of the text, which the closing brace must be."""
    after = self._skip(self.text, self.at, '}')
    if after < len(self.text):
      raise ValueError('text after the object')
    return after

  @staticmethod
  def _skip(text: str, at: int, mark: str = '') -> int:
    """Returns the place after spaces, a mark, and spaces."""
    space: Any = _SPACE.match(text, at)
    at = space.end()
    if not text.startswith(mark, at):
      raise ValueError(f'no {mark}')
    space = _SPACE.match(text, at + len(mark))
    return int(space.end())


def _refuse(constant: str) -> None:
  raise ValueError(constant)


def _number(text: str) -> float:
  """Parses a float; one that is infinite is refused."""
  value = float(text)
  if math.isinf(value):
    raise ValueError(text)
  return value


def _integer(text: str) -> int | float:
  """Parses an integer; ``-0`` is a float."""
  return -0.0 if text == '-0' else int(text)


def check_unknown(value: Any, depth: int) -> None:
  """Checks the value of an unknown field, which is inside ``depth`` others."""
  if isinstance(value, int):
    float(value)  # serde_json refuses what float64 does not reach
  elif isinstance(value, (list, tuple)):
    if depth > _MAX_DEPTH:
      raise ValueError(depth)
    for child in value:
      check_unknown(child, depth + 1)
