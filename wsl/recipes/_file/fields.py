"""Checks of the fields of a recipe; messages name the place in the file."""

from collections.abc import Mapping, Sequence
from typing import Any

from wsl import tree
from wsl.recipes import _recipe


def mapping(
  value: Any,
  place: str,
  keys: set[str] | None = None,
  needed: Sequence[str] = (),
) -> Mapping[str, Any]:
  """Checks that a value is a dict with known keys, and has those needed."""
  if not isinstance(value, Mapping):
    kind = 'empty' if value is None else f'a {type(value).__name__}'
    raise ValueError(f'{place} is {kind}, expected keys')
  for key in value:
    if keys is not None and key not in keys:
      hint = tree.nearest(str(key), sorted(keys))
      raise ValueError(f"{place}: no key '{key}'{hint}")
  for key in needed:
    if key not in value:
      raise ValueError(f"{place}: the key '{key}' is missing")
  return value


def items(value: Any, place: str) -> list[Any]:
  if not isinstance(value, list):
    raise ValueError(f'{place} is a {type(value).__name__}, expected a list')
  return value


def text(value: Any, place: str) -> str:
  if not isinstance(value, str):
    raise ValueError(f'{place} is a {type(value).__name__}, expected a text')
  return value


def model(value: Any, place: str) -> _recipe.Model:
  """Reads ``'folder'``, ``'folder+adapter'`` or mergekit's nested form."""
  if isinstance(value, Mapping):
    value = mapping(value, place, {'model', 'lora', 'path', 'revision'})
    inner = value.get('model', value)
    path = inner.get('path') if isinstance(inner, Mapping) else inner
    lora = value.get('lora')
    lora = lora.get('path') if isinstance(lora, Mapping) else lora
  else:
    path, _, lora = str(value).partition('+')
  if not path or not isinstance(path, str) or not isinstance(lora or '', str):
    raise ValueError(f'{place}={value!r}: expected the folder of a model')
  return _recipe.Model(path, lora or None)
