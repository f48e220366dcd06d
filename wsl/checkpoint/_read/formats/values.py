"""What a file may hold beside arrays, and the tree that becomes of it.

A file of PyTorch or Flax is a tree of dicts, lists and tuples. A number is an
array without axes (float64, int64, bool or complex128), as NumPy has it;
``None`` and strings stay; everything else is refused.
"""

from collections.abc import Callable, Mapping
import pathlib
from typing import Any

import numpy as np

from wsl.checkpoint._read import messages

_NUMBERS = (bool, int, float, complex)
_SHOWN = 6


def convert(
  path: pathlib.Path,
  node: Any,
  array: Callable[[str, Any], Any],
  *,
  arrays: type | tuple[type, ...],
  budget: int,
) -> Any:
  """Returns the tree of a file, arrays replaced by leaves.

  Args:
    path: the file, for messages.
    node: the parsed content.
    array: makes a leaf from its name and an instance of ``arrays``.
    arrays: the classes of arrays in the content.
    budget: the most nodes to visit. A container that occurs many times could
      otherwise unfold into more nodes than there are atoms.

  Raises:
    ValueError: naming the node that is neither an array nor a container.
  """
  left = [budget]

  def build(name: str, node: Any) -> Any:
    left[0] -= 1
    if left[0] < 0:
      raise messages.damaged(path, 'it holds one container many times')
    if isinstance(node, arrays):
      return array(name, node)
    if node is None or isinstance(node, str):
      return node
    if isinstance(node, _NUMBERS):
      return _number(path, name, node)
    if isinstance(node, dict):  # or the attributes of an object
      _check_keys(path, name, node)
      return {key: build(_join(name, key), x) for key, x in node.items()}
    if type(node) in (list, tuple):
      return type(node)(build(_join(name, i), x) for i, x in enumerate(node))
    raise ValueError(
      f'load: {path} holds {type(node).__name__} at {messages.quote(name)}, '
      'which is no array: save the weights alone, or choose them by item='
    )

  try:
    return build('', node)
  except RecursionError:
    raise messages.damaged(path, 'it is nested too deeply') from None


def choose(path: pathlib.Path, content: Any, item: str | None) -> Any:
  """Returns the part of a file under a key, ``'a'`` or ``'a/b'``.

  Raises:
    FileNotFoundError: if there is none, listing the keys.
  """
  if item is None:
    return content
  if isinstance(content, Mapping) and item in content:
    return content[item]
  for key in item.split('/'):
    if not isinstance(content, Mapping) or key not in content:
      keys = list(content)[:_SHOWN] if isinstance(content, Mapping) else []
      raise FileNotFoundError(
        f'load(item={item!r}): {path} holds {messages.listed(keys)}: give one '
        'of them'
      )
    content = content[key]
  return content


def _number(path: pathlib.Path, name: str, value: Any) -> np.ndarray:
  """Returns a number as an array without axes."""
  array = np.asarray(value)
  if array.dtype == object:
    raise ValueError(
      f'load: {path} holds an integer of more than 64 bits at '
      f'{messages.quote(name)}: choose the weights by item='
    )
  return array


def _check_keys(path: pathlib.Path, name: str, node: Mapping[Any, Any]) -> None:
  """Checks that keys can be sorted, as every pytree sorts them."""
  try:
    sorted(node)
  except TypeError:
    raise ValueError(
      f'load: {path} has keys of several types at {messages.quote(name)}: '
      'choose the weights by item='
    ) from None


def _join(name: str, key: object) -> str:
  return f'{name}/{key}' if name else str(key)
