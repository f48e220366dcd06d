"""Hashes of leaves in the metadata of a file, by which a flipped bit is found.

The metadata of each file maps ``wsl.sha256`` to a JSON object of the SHA-256 of
each tensor's bytes, in hexadecimal, by name.
"""

from collections.abc import Iterable, Mapping
import hashlib
import json
import pathlib
from typing import Any

KEY = 'wsl.sha256'
_UNKNOWN = '0' * 64


def new(data: Any = b'') -> Any:
  """Returns the hash of the first bytes of a leaf, to be updated with others.

  Args:
    data: contiguous bytes, or an array of them.
  """
  return hashlib.sha256(data)


def encode(names: Iterable[str], digests: Mapping[str, str]) -> dict[str, str]:
  """Returns the entry of the metadata; zeros in place of unknown hashes."""
  held = {name: digests.get(name, _UNKNOWN) for name in names}
  text = json.dumps(held, ensure_ascii=False, separators=(',', ':'))
  return {KEY: text}


def decode(path: pathlib.Path, metadata: Mapping[str, str]) -> dict[str, str]:
  """Returns the hash of each leaf in a file; empty if it records none.

  Raises:
    ValueError: if the entry is malformed.
  """
  try:
    # A list of pairs is no object.
    return {**json.loads(metadata.get(KEY, '{}'))}
  except (ValueError, TypeError, RecursionError):
    raise ValueError(
      f"load: {path} is damaged, copy it again: its metadata '{KEY}' is not a "
      'JSON object'
    ) from None
