"""Headers in the form in which they are written, parsed in one pass.

The published package and ``checkpoint.save`` write JSON without spaces, the
metadata first, the three fields of an entry in one order, and the entries in
the order of their bytes. One regular expression then finds all entries, in a
tenth of the time of a JSON parser. A header of any other form is left to
``header``, which also reports what is wrong with it.
"""

import json
import re

from wsl.checkpoint import _format
from wsl.checkpoint._read.safetensors import entry as entry_lib

_INTEGER = '(0|[1-9][0-9]{0,15})'
_ENTRY = re.compile(
  r'"([^"\\\x00-\x1f]*)":\{"dtype":"([A-Z0-9_]+)","shape":\[([0-9,]*)\],'
  rf'"data_offsets":\[{_INTEGER},{_INTEGER}\]\}},'
)
# The characters of a match beside those in its groups.
_FIXED = len('"":{"dtype":"","shape":[],"data_offsets":[,]},')
_SHAPE = re.compile(f'{_INTEGER}(,{_INTEGER})*|')
_DECODER = json.JSONDecoder()
_START = f'{{"{_format.METADATA}":{{'


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
  if text.startswith(_START):
    try:
      metadata, stop = _DECODER.raw_decode(text, len(_START) - 1)
    except (ValueError, RecursionError):
      return None
    # An escape may be half of a surrogate pair, which json accepts.
    odd = '\\u' in text[:stop] or text[stop : stop + 1] != ','
    if odd or not all(isinstance(value, str) for value in metadata.values()):
      return None
    start = stop + 1
  body = text[start:].rstrip(' ')
  if not text.startswith('{') or not body.endswith('}'):
    return None
  found = _ENTRY.findall(f'{body[:-1]},')
  length = sum(map(len, map(''.join, found))) + _FIXED * len(found)
  if length != len(body) or not found:
    return None
  entries = _entries(found, payload)
  return None if entries is None else (entries, metadata)


def _entries(
  found: list[tuple[str, ...]], payload: int
) -> dict[str, entry_lib.Entry] | None:
  """Returns the entries, if they are in the order of their bytes and sound."""
  # Few leaves differ in dtype and shape.
  kinds: dict[tuple[str, str], tuple] = {}
  entries: dict[str, entry_lib.Entry] = {}
  make, end = entry_lib.Entry, 0
  for name, code, shape, first, last in found:
    kind = kinds.get((code, shape)) or _kind(code, shape)
    if kind is None:
      return None
    kinds[code, shape] = kind
    start, stop = int(first), int(last)
    if start != end or stop - start != kind[2]:
      return None
    entries[name] = make(kind[0], kind[1], payload + start, kind[2])
    end = stop
  unique = len(entries) == len(found) and _format.METADATA not in entries
  return entries if unique else None


def _kind(code: str, shape: str) -> tuple | None:
  """Returns the dtype, the shape and the bytes of a tensor, if it is sound."""
  if code not in entry_lib.BITS or not _SHAPE.fullmatch(shape):
    return None
  dtype, bits = entry_lib.BITS[code]
  sizes = [int(n) for n in shape.split(',')] if shape else []
  size = entry_lib.size_in_bits(sizes, bits)
  if size is None or size % 8:
    return None
  return dtype, tuple(sizes), size // 8
