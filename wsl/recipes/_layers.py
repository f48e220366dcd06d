"""The numbered layers of a model, found in the names of its tensors.

No architecture is listed. The first number in a name, ``model.layers.7.w``,
numbers its layer; the names before it, ``model.layers``, are the stack.
"""

from collections.abc import Iterable, Mapping
import re
from typing import Any, NamedTuple

# Keys of config.json that count layers.
_COUNTS = ('num_hidden_layers', 'n_layer', 'n_layers', 'num_layers')
# Parts of names of tensors before the first layer; others outside the layers
# are after the last.
_BEFORE = ('embed', 'wte', 'wpe', 'rotary')
_NUMBERED = re.compile(r'(|.*?[./])(\d+)([./].+)', re.DOTALL)


class Place(NamedTuple):
  """A tensor in a stack of layers; its name is the three joined."""

  stack: str  # with the separator after it
  number: int
  rest: str  # with the separator before it


def place(name: str) -> Place | None:
  """Returns the layer of a tensor, or None if its name has no number.

  Args:
    name: of the tensor, with dots or slashes.

  Returns:
    The stack, the number and the rest of the name.

  Example:
    >>> place('model.layers.7.mlp.up.weight')
    Place(stack='model.layers.', number=7, rest='.mlp.up.weight')
  """
  found = _NUMBERED.fullmatch(name)
  return found and Place(found[1], int(found[2]), found[3])


def stacks(
  names: Iterable[str], config: Mapping[str, Any] | None
) -> dict[str, int]:
  """Returns the stacks of layers of a model, and how many layers each has.

  Args:
    names: of the tensors.
    config: the content of config.json; of nested ones, any may count layers.

  Returns:
    The stacks with as many layers as the config says; without a config that
    says so, the one with most tensors.

  Example:
    >>> stacks(['h.0.w', 'h.1.w', 'h.1.b', 'head.0.w'], None)
    {'h.': 2}
  """
  layers: dict[str, set[int]] = {}
  tensors: dict[str, int] = {}
  for found in filter(None, map(place, names)):
    layers.setdefault(found.stack, set()).add(found.number)
    tensors[found.stack] = tensors.get(found.stack, 0) + 1
  whole = {s: len(x) for s, x in layers.items() if x == set(range(len(x)))}
  counts = set(_counts(config or {}))
  counted = {s: n for s, n in whole.items() if n in counts}
  if counted or not whole:
    return counted
  largest = max(whole, key=lambda stack: tensors[stack])
  return {largest: whole[largest]}


def is_before(name: str) -> bool:
  """Returns whether a tensor outside the layers is before the first one.

  Example:
    >>> is_before('model.embed_tokens.weight'), is_before('lm_head.weight')
    (True, False)
  """
  return any(part in name for part in _BEFORE)


def with_count(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
  """Returns a config with another number of layers.

  Example:
    >>> with_count({'n_layer': 12, 'n_head': 12}, 18)
    {'n_layer': 18, 'n_head': 12}
  """
  counts = {key: layers for key in _COUNTS if type(config.get(key)) is int}
  return {**config, **counts}


def _counts(config: Mapping[str, Any]) -> list[int]:
  """Returns the numbers of layers in a config and in the configs in it."""
  found = [config[key] for key in _COUNTS if type(config.get(key)) is int]
  for value in config.values():
    if isinstance(value, Mapping):
      found += _counts(value)
  return found
