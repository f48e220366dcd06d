"""What differs between two checkpoints besides the values of tensors."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from experiments._compare_checkpoints import settings
from wsl import stats, tree

_SUFFIXES = ('.json', '.jinja', '.model', '.txt')
_LARGEST = 1 << 20  # of a JSON file that is compared field by field, in bytes
_PREFIX = 1 << 10  # entries by which most pairs of tensors are told apart


class Pairs(NamedTuple):
  """Tensors of one name and shape.

  Attributes:
    a: those of the first checkpoint, by name.
    b: those of the second, by the first one's names.
    only: by side, the names without a partner.
    shapes: by name, two shapes that differ.
  """

  a: dict[str, Any]
  b: dict[str, Any]
  only: dict[str, list[str]]
  shapes: dict[str, list[list[int]]]


def pairs(a: settings.Side, b: settings.Side) -> Pairs:
  """Matches tensors by name, dotted or nested."""
  found, extra = tree.common(a.tensors, b.tensors)
  only = {'a': [n for n in a.tensors if n not in found], 'b': extra}
  shapes = {
    name: [list(a.tensors[name].shape), list(y.shape)]
    for name, y in found.items()
    if tuple(a.tensors[name].shape) != tuple(y.shape)
  }
  order = [n for n in tree.in_order(found) if n not in shapes]
  left, right = ({n: x[n] for n in order} for x in (a.tensors, found))
  return Pairs(left, right, only, shapes)


def describe(
  a: settings.Side, b: settings.Side, matched: Pairs
) -> dict[str, Any]:
  """Returns what differs, as JSON.

  Returns:
    ``only_in_a`` and ``only_in_b``: by name, the tensor of the same checkpoint
    that it is a copy of, or None; ``shapes``, ``dtypes``, ``metadata`` and
    ``files``: by name, both values.
  """
  dtypes = {
    name: [str(x.dtype), str(matched.b[name].dtype)]
    for name, x in matched.a.items()
    if x.dtype != matched.b[name].dtype
  }
  return {
    **{
      f'only_in_{side}': {name: _copied(x.tensors, name) for name in names}
      for (side, names), x in zip(matched.only.items(), (a, b))
    },
    'shapes': matched.shapes,
    'dtypes': dtypes,
    'metadata': _differing(a.notes, b.notes),
    'files': _files(a.path, b.path),
  }


def _copied(tensors: Mapping[str, Any], name: str) -> str | None:
  """Returns the tensor that one is a copy of, such as a tied embedding."""
  x = tensors[name]
  for other, y in tensors.items():
    alike = other != name and y.dtype == x.dtype and y.shape == x.shape
    if not (alike and x.size and _begin_alike(x, y)):
      continue
    ((_, found),) = stats.leaf_differences({'': x}, {'': y})
    if not found.differing:
      return other
  return None


def _begin_alike(x: Any, y: Any) -> bool:
  """Compares the first entries of two tensors that are read in parts."""
  if x.read_into is None or y.read_into is None:
    return True
  first, second = (np.empty(min(x.size, _PREFIX), x.dtype) for _ in range(2))
  x.read_into(0, first)
  y.read_into(0, second)
  return first.tobytes() == second.tobytes()


def _files(a: pathlib.Path, b: pathlib.Path) -> dict[str, Any]:
  """Compares the files beside the tensors of two folders."""
  if not (a.is_dir() and b.is_dir()):
    return {}
  names = [_names(a), _names(b)]
  found: dict[str, Any] = {}
  for name in sorted({*names[0], *names[1]}):
    if any(name not in has for has in names):
      found[name] = 'only in ' + ('a' if name in names[0] else 'b')
    elif (a / name).read_bytes() != (b / name).read_bytes():
      first, second = _fields(a / name), _fields(b / name)
      found[name] = 'other bytes'
      if first is not None and second is not None:
        found[name] = _differing(first, second) or 'other bytes'
  return found


def _names(folder: pathlib.Path) -> set[str]:
  """Returns the names of configs and tokenizer files in a folder."""
  return {
    x.name
    for x in folder.iterdir()
    if x.is_file()
    and x.suffix in _SUFFIXES
    and not x.name.endswith('.index.json')
  }


def _fields(file: pathlib.Path) -> dict[str, Any] | None:
  """Reads the fields of a JSON object; None for other and large files."""
  if file.suffix != '.json' or file.stat().st_size > _LARGEST:
    return None
  try:
    content = json.loads(file.read_text(encoding='utf-8'))
  except (UnicodeDecodeError, json.JSONDecodeError):
    return None
  return content if isinstance(content, dict) else None


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields whose values differ, None where there is none."""
  return {
    key: [a.get(key), b.get(key)]
    for key in sorted({*a, *b})
    if a.get(key) != b.get(key)
  }
