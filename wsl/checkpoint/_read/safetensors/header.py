"""Headers of safetensors files, accepted exactly as the published package does.

The package parses the header by serde_json in Rust (see ``serde``), into a map
of entries. Names may occur twice, the last one counts; fields of an entry may
not; unknown fields are allowed. An entry may be a list of its three fields.
"""

import math
import os
import pathlib
from typing import Any

from wsl.checkpoint import _format
from wsl.checkpoint._read import file_bytes, foreign, messages
from wsl.checkpoint._read.safetensors import canonical, serde
from wsl.checkpoint._read.safetensors import entry as entry_lib

_MAX_INTEGER = 2**64 - 1
_FIELDS = canonical.FIELDS
# What a malformed header raises; names differ by the place of the fault.
_ERRORS = (TypeError, ValueError, OverflowError, IndexError)


def read_header(path: pathlib.Path) -> entry_lib.Header:
  """Reads and checks a file's header, without reading the payload.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file is damaged, naming what is wrong with it, or is of
      another format.
  """
  messages.check_regular(path)
  with open(path, 'rb', buffering=0) as file:
    stamp = file_bytes.stamp_of(os.fstat(file.fileno()))
    first = file.read(8)
    length = int.from_bytes(first, 'little')
    text = b''
    if len(first) == 8 and length <= min(stamp[0] - 8, foreign.LONGEST_HEADER):
      text = file.read(length)
  if len(text) < length or len(first) < 8:
    raise foreign.error(path) or messages.damaged(
      path, f'its header should take {length} bytes, the file has {stamp[0]}'
    )
  try:
    decoded = text.decode('utf-8')
    del text
    members = serde.Members(decoded)
  except ValueError:
    raise _no_object(path) from None
  entries, metadata = _parse(path, members, 8 + length)
  _check_cover(path, entries, 8 + length, stamp[0])
  return entry_lib.Header(entries, metadata, stamp)


def _parse(
  path: pathlib.Path, members: serde.Members, payload: int
) -> tuple[dict[str, entry_lib.Entry], dict[str, str]]:
  """Parses the members of a header: tensors, and the metadata."""
  metadata: dict[str, str] | None = None
  entries: dict[str, entry_lib.Entry] = {}
  order = _FIELDS
  while True:
    members.at = canonical.consume(
      members.text, members.at, order, payload, entries
    )
    if members.at == len(members.text):
      return entries, metadata or {}
    try:
      name, value = members.next()
    except (*_ERRORS, RecursionError):
      raise _no_object(path) from None
    if name == _format.METADATA:
      if metadata is not None:
        raise messages.damaged(path, f'its header has {name} twice')
      metadata = _metadata(path, value)
      continue
    try:
      entries[name] = _entry(value, payload)
    except (*_ERRORS, RecursionError):
      raise _explain(path, name, value, name in entries) from None
    if type(value) is tuple and len(value) == len(_FIELDS):
      order = tuple(field for field, _ in value)


def _no_object(path: pathlib.Path) -> ValueError:
  """Returns the error for a header that is not JSON, or of another format."""
  return foreign.error(path) or messages.damaged(
    path, 'its header is not a JSON object'
  )


def _metadata(path: pathlib.Path, value: Any) -> dict[str, str]:
  """Returns the metadata, an object of strings or null."""
  if value is None:
    return {}
  if not isinstance(value, tuple) or not all(
    isinstance(v, str) for _, v in value
  ):
    raise messages.damaged(
      path, f'{_format.METADATA} in its header maps not strings to strings'
    )
  return dict(value)


def _entry(value: Any, payload: int) -> entry_lib.Entry:
  """Parses and checks the header's entry of one tensor.

  Raises:
    TypeError: if a field has another type.
    ValueError: if a value is out of range.
  """
  (_, code), (_, shape), (_, offsets) = _fields(value)
  start, stop = offsets
  dtype, bits = entry_lib.BITS[_code(code)]
  _check_integers([start, stop])
  _check_integers(shape)
  size = entry_lib.size_in_bits(shape, bits)
  if size is None or size != 8 * (stop - start):
    raise ValueError(size)
  return entry_lib.Entry(dtype, tuple(shape), payload + start, stop - start)


def _fields(value: Any) -> Any:
  """Returns the three fields of an entry with their names, in order."""
  if type(value) is tuple and tuple(key for key, _ in value) == _FIELDS:
    return value
  if isinstance(value, list):
    if len(value) != 3:
      raise ValueError(len(value))
    return zip(_FIELDS, value)
  known = [pair for pair in value if pair[0] in _FIELDS]
  if len(known) < len(value):
    serde.check_unknown([v for _, v in value], 2)
  known.sort(key=lambda pair: _FIELDS.index(pair[0]))
  if tuple(key for key, _ in known) != _FIELDS:
    raise ValueError(known)
  return known


def _code(value: Any) -> str:
  """Returns a dtype's code; serde writes it as a string or ``{code: null}``."""
  if isinstance(value, tuple):
    ((value, nothing),) = value
    if nothing is not None:
      raise TypeError(nothing)
  if not isinstance(value, str) or value not in entry_lib.BITS:
    raise ValueError(value)
  return value


def _check_integers(values: Any) -> None:
  """Checks a list of integers of 64 bits without a sign."""
  if type(values) is not list or not {int}.issuperset(map(type, values)):
    raise TypeError(values)
  if values and (min(values) < 0 or max(values) > _MAX_INTEGER):
    raise ValueError(values)


def _explain(
  path: pathlib.Path, name: str, value: Any, twice: bool
) -> ValueError:
  """Returns the error for an entry that ``_entry`` refuses."""
  quoted = messages.quote(name)
  if twice:
    return messages.damaged(path, f'its header has the name {quoted} twice')
  try:
    (_, code), (_, shape), (_, (start, stop)) = _fields(value)
    _check_integers(shape)
    _check_integers([start, stop])
    code = code if isinstance(code, str) else _code(code)
  except (*_ERRORS, RecursionError):
    return messages.damaged(
      path, f"the header's entry of leaf {quoted} is malformed"
    )
  if code not in entry_lib.BITS:
    return ValueError(
      f'load: leaf {quoted} of {path} has dtype {messages.quote(code)}, which '
      'safetensors does not have: convert the file'
    )
  kind = f'{code}{shape}' if len(shape) < 8 else f'its {code} array'
  _, bits = entry_lib.BITS[code]
  if entry_lib.size_in_bits(shape, bits) is None:
    return messages.damaged(
      path, f'the size of leaf {quoted}, {kind:.80}, is beyond 64 bits'
    )
  return messages.damaged(
    path,
    f'leaf {quoted} has {stop - start} bytes, {kind:.80} needs '
    f'{math.prod(shape) * bits / 8:g}',
  )


def _check_cover(
  path: pathlib.Path,
  entries: dict[str, entry_lib.Entry],
  payload: int,
  size: int,
) -> None:
  """Checks that the tensors cover the payload without holes or overlaps."""
  end = payload
  for entry in entries.values():  # nearly always in order
    if entry.start != end:
      break
    end += entry.nbytes
  else:
    if end == size:
      return
  end = payload
  for name, entry in sorted(entries.items(), key=_range_of):
    if entry.start != end:
      what = 'overlaps the one before' if entry.start < end else 'follows a gap'
      raise messages.damaged(path, f'leaf {messages.quote(name)} {what}')
    end += entry.nbytes
    if end > size:
      raise messages.damaged(
        path,
        f'it is truncated: leaf {messages.quote(name)} ends at byte {end} of '
        f'{size}',
      )
  if end < size:
    raise messages.damaged(
      path, f'{size - end} bytes at its end belong to no leaf'
    )


def _range_of(item: tuple[str, entry_lib.Entry]) -> tuple[int, int]:
  return item[1].start, item[1].nbytes
