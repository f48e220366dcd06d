"""JSON as serde_json in Rust reads it.

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


def parse(text: str) -> tuple[tuple[str, Any], ...]:
  """Parses a JSON object; objects become tuples of pairs, lists stay lists.

  Raises:
    ValueError: if serde_json would refuse the text; depth and the size of
      numbers in unknown fields are left to ``check_unknown``.
  """
  integer = _integer if _MINUS_ZERO.search(text) else None
  pairs = json.loads(
    text,
    # A C function: the pairs of 70,000 entries cost no Python call.
    object_pairs_hook=tuple,
    parse_constant=_refuse,
    parse_float=_number,
    parse_int=integer,
  )
  if not isinstance(pairs, tuple):
    raise ValueError('not an object')
  if '\\u' in text:  # json accepts half of a surrogate pair
    json.dumps(pairs, ensure_ascii=False).encode('utf-8')
  return pairs


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
