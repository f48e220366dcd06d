"""Entries with their three fields in one order, each matched at once.

All writers of safetensors use one order of the three fields. One regular
expression then matches an entry, in a fifth of the time of a JSON parser; and
where names have no escapes and nothing has spaces, all entries of a block at
once, in half of that. Any other entry is left to ``serde``, which also finds
what is wrong with it.
"""

from collections.abc import Callable
import functools
import json
import re

from wsl.checkpoint import _format
from wsl.checkpoint._read.safetensors import entry as entry_lib

FIELDS = ('dtype', 'shape', 'data_offsets')
_DIGITS = 15  # of the largest integer that is parsed here
_LONGEST_SHAPE = 1000  # characters
_BLOCK = 1 << 16  # characters that are matched at once
# Quantifiers are possessive: a mismatch takes linear time.
_SPACE = r'[ \t\n\r]*+'
_NAME = r'(?:[^"\\\x00-\x1f]++|\\.)*+'
_INTEGER = f'(0|[1-9][0-9]{{0,{_DIGITS}}}+)'
_VALUES = {
  'dtype': '"([A-Z0-9_]++)"',
  'shape': r'\[([0-9, \t\n\r]*+)\]',
  'data_offsets': (
    rf'\[{_SPACE}{_INTEGER}{_SPACE},{_SPACE}{_INTEGER}{_SPACE}\]'
  ),
}
_GROUPS = {'dtype': 1, 'shape': 1, 'data_offsets': 2}
_Match = Callable[[str, int], re.Match[str] | None]
# What an entry without spaces has beside its groups.
_FIXED = len('"":{"dtype":"","shape":[],"data_offsets":[,]}')
Entries = dict[str, entry_lib.Entry]


@functools.cache
def _pattern(order: tuple[str, ...]) -> tuple[str, tuple[int, ...]]:
  """Returns the pattern of an entry with its fields in an order.

  Also returns the groups of name, dtype, shape, start, stop, and the comma or
  brace after the entry.
  """
  fields = f'{_SPACE},{_SPACE}'.join(
    f'"{field}"{_SPACE}:{_SPACE}{_VALUES[field]}' for field in order
  )
  pattern = (
    rf'"({_NAME})"{_SPACE}:{_SPACE}\{{{_SPACE}{fields}{_SPACE}\}}'
    rf'{_SPACE}([,}}]){_SPACE}'
  )
  groups, place = {}, 2
  for field in order:
    groups[field] = range(place, place + _GROUPS[field])
    place += _GROUPS[field]
  inner = [i for field in FIELDS for i in groups[field]]
  return pattern, (1, *inner, place)


@functools.cache
def _matcher(order: tuple[str, ...]) -> tuple[_Match, tuple[int, ...]]:
  """Returns what matches one entry, and the groups of ``_pattern``."""
  pattern, groups = _pattern(order)
  return re.compile(pattern).match, groups


@functools.cache
def _finder(order: tuple[str, ...]) -> Callable[..., list[tuple[str, ...]]]:
  """Returns what finds all entries without spaces and escapes."""
  pattern, _ = _pattern(order)
  pattern = pattern.replace(_SPACE, '').replace(_NAME, r'[^"\\\x00-\x1f]*+')
  return re.compile(pattern).findall


def consume(
  text: str,
  at: int,
  order: tuple[str, ...],
  payload: int,
  entries: Entries,
) -> int:
  """Parses entries from a place in a header on, as far as they are sound.

  Args:
    text: the header.
    at: the place of the first entry.
    order: that of the three fields.
    payload: the offset of the first tensor in the file.
    entries: the entries so far; those that are found are added.

  Returns:
    The place after the last entry that is parsed; the length of the text if the
    object ends there.
  """
  # Few leaves differ in dtype and shape.
  kinds: dict[tuple[str, str], tuple | None] = {}
  at = _consume_blocks(text, at, order, payload, entries, kinds)
  match, groups = _matcher(order)
  while found := match(text, at):
    name, code, shape, first, last, mark = found.group(*groups)
    kind = kinds.get((code, shape)) or _kind(code, shape)
    if kind is None:
      return at
    kinds[code, shape] = kind
    dtype, sizes, nbytes = kind
    start = int(first)
    if int(last) - start != nbytes:
      return at
    if '\\' in name and (name := _unescape(name)) is None:
      return at
    after = found.end()
    if name == _format.METADATA or (mark == '}') != (after == len(text)):
      return at
    entries[name] = entry_lib.Entry(dtype, sizes, payload + start, nbytes)
    at = after
    if mark == '}':
      break
  return at


def _consume_blocks(
  text: str,
  at: int,
  order: tuple[str, ...],
  payload: int,
  entries: Entries,
  kinds: dict[tuple[str, str], tuple | None],
) -> int:
  """Parses blocks of sound entries without spaces; returns their end."""
  find, (_, *places, _) = _finder(order), _pattern(order)[1]
  code_at, shape_at, first_at, last_at = (place - 1 for place in places)
  # Faster than the class, whose constructor is a function in Python.
  make, new = entry_lib.Entry, tuple.__new__
  # A block ends after an entry, or inside of a name, and then does not match.
  while after := text.rfind(']},', at, at + _BLOCK) + 3:
    if after <= 3:
      break
    found = find(text, at, after)
    length = sum(map(len, map(''.join, found))) + _FIXED * len(found)
    if length != after - at:
      break
    for row in found:
      name, code, shape = row[0], row[code_at], row[shape_at]
      kind = kinds.get((code, shape)) or _kind(code, shape)
      start = int(row[first_at])
      nbytes = int(row[last_at]) - start
      if kind is None or nbytes != kind[2] or name == _format.METADATA:
        return at  # the entry is found again, by itself
      kinds[code, shape] = kind
      dtype, sizes, _ = kind
      entries[name] = new(make, (dtype, sizes, payload + start, nbytes))
    at = after
  return at


def _unescape(name: str) -> str | None:
  """Returns a name without its escapes; None if one of them is not sound."""
  try:
    found = str(json.loads(f'"{name}"'))
    # json accepts half of a surrogate pair.
    found.encode('utf-8')
  except ValueError:
    return None
  return found


def _kind(code: str, shape: str) -> tuple | None:
  """Returns the dtype, the shape and the bytes of a tensor, if it is sound."""
  if code not in entry_lib.BITS or len(shape) > _LONGEST_SHAPE:
    return None
  dtype, bits = entry_lib.BITS[code]
  shape = shape.strip(' \t\n\r')
  parts = [n.strip(' \t\n\r') for n in shape.split(',')] if shape else []
  if not all(n.isdecimal() and len(n) <= _DIGITS for n in parts):
    return None
  sizes = tuple(map(int, parts))
  # JSON has no leading zeros: the numbers must be written as they were.
  if [*map(str, sizes)] != parts:
    return None
  size = entry_lib.size_in_bits(sizes, bits)
  return None if size is None or size % 8 else (dtype, sizes, size // 8)
