"""Headers in the form in which they are written, parsed in one pass.

The published package and ``checkpoint.save`` write JSON without spaces, the
metadata first, the three fields of an entry in one order, and the entries in
the order of their bytes; Python's ``json`` adds spaces. One regular expression
then finds all entries, in a tenth of the time of a JSON parser. A header of any
other form is left to ``header``, which also reports what is wrong with it.
"""

import json
import re
from typing import NamedTuple

from wsl.checkpoint import _format
from wsl.checkpoint._read.safetensors import entry as entry_lib

# Entries are parsed in blocks that stay in the CPU's cache.
_BLOCK = 1 << 16
_DECODER = json.JSONDecoder()
_DIGITS = 15  # of the largest integer that is parsed here
_LONGEST_SHAPE = 1000  # characters


class _Style(NamedTuple):
  """A way to write an entry.

  Attributes:
    pattern: matches an entry and the comma after it.
    fixed: the characters of a match beside those in its groups.
    comma: separates the sizes of a shape.
    start: what a header with metadata starts with.
  """

  pattern: re.Pattern[str]
  fixed: int
  comma: str
  start: str


def _style(space: str) -> _Style:
  """Returns the style with a space, or none, after each colon and comma."""
  colon, comma = f':{space}', f',{space}'
  text = (
    f'"NAME"{colon}{{"dtype"{colon}"CODE"{comma}"shape"{colon}[SHAPE]{comma}'
    f'"data_offsets"{colon}[START{comma}STOP]}}{comma}'
  )
  groups = {
    'NAME': r'([^"\\\x00-\x1f]*)',
    'CODE': '([A-Z0-9_]+)',
    'SHAPE': f'([0-9,{space}]*)',
    'START': f'(0|[1-9][0-9]{{0,{_DIGITS}}})',
    'STOP': f'(0|[1-9][0-9]{{0,{_DIGITS}}})',
  }
  pattern = re.escape(text)
  for name, group in groups.items():
    pattern, text = pattern.replace(name, group), text.replace(name, '')
  metadata = f'{{"{_format.METADATA}"{colon}{{'
  return _Style(re.compile(pattern), len(text), comma, metadata)


_STYLES = (_style(''), _style(' '))


def parse(
  text: str, payload: int
) -> tuple[dict[str, entry_lib.Entry], dict[str, str]] | None:
  """Parses a header.

  Args:
    text: the header.
    payload: the offset of the first tensor in the file.

  Returns:
    The tensors and the metadata; None if the header is of another form.
  """
  metadata: dict[str, str] = {}
  start = 1
  style = _STYLES[': ' in text[: text.find('{', 1)]]
  if text.startswith(style.start):
    try:
      metadata, stop = _DECODER.raw_decode(text, len(style.start) - 1)
    except (ValueError, RecursionError):
      return None
    # An escape may be half of a surrogate pair, which json accepts.
    odd = '\\u' in text[:stop] or not text.startswith(style.comma, stop)
    if odd or not all(isinstance(value, str) for value in metadata.values()):
      return None
    start = stop + len(style.comma)
  body = text[start:].rstrip(' ')
  if not text.startswith('{') or not body.endswith('}'):
    return None
  entries = _entries(style, body[:-1] + style.comma, payload)
  return None if entries is None else (entries, metadata)


def _entries(
  style: _Style, text: str, payload: int
) -> dict[str, entry_lib.Entry] | None:
  """Returns the entries, if they are in the order of their bytes and sound."""
  # Few leaves differ in dtype and shape.
  kinds: dict[tuple[str, str], tuple] = {}
  entries: dict[str, entry_lib.Entry] = {}
  # Faster than the class, whose constructor is a function in Python.
  make, new = entry_lib.Entry, tuple.__new__
  at = end = number = 0
  while at < len(text):
    # A block ends after an entry, or inside of a name, and then does not match.
    mark = text.find(f']}}{style.comma}', at + _BLOCK)
    after = len(text) if mark < 0 else mark + 2 + len(style.comma)
    found = style.pattern.findall(text, at, after)
    length = sum(map(len, map(''.join, found))) + style.fixed * len(found)
    if length != after - at:
      return None
    at, number = after, number + len(found)
    for name, code, shape, first, last in found:
      kind = kinds.get((code, shape)) or _kind(code, shape, style)
      if kind is None:
        return None
      kinds[code, shape] = kind
      dtype, sizes, nbytes = kind
      start, stop = int(first), int(last)
      if start != end or stop - start != nbytes:
        return None
      entries[name] = new(make, (dtype, sizes, payload + start, nbytes))
      end = stop
  unique = len(entries) == number and _format.METADATA not in entries
  return entries if unique else None


def _kind(code: str, shape: str, style: _Style) -> tuple | None:
  """Returns the dtype, the shape and the bytes of a tensor, if it is sound."""
  if code not in entry_lib.BITS or len(shape) > _LONGEST_SHAPE:
    return None
  dtype, bits = entry_lib.BITS[code]
  parts = shape.split(style.comma) if shape else []
  # JSON has no leading zeros: the numbers must be written as they were.
  if not all(n.isdecimal() and len(n) <= _DIGITS for n in parts):
    return None
  sizes = tuple(map(int, parts))
  if style.comma.join(map(str, sizes)) != shape:
    return None
  size = entry_lib.size_in_bits(sizes, bits)
  return None if size is None or size % 8 else (dtype, sizes, size // 8)
