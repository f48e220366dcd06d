"""Names of leaves."""

from collections.abc import Callable, Iterable, Sequence
import difflib
import re
from typing import Any

import jax

from wsl import types

_DIGITS = re.compile('([0-9]+)')
_NUMBER = re.compile('[0-9]+')
# Longer numbers in names are not sorted by value.
_DIGITS_PADDED = 20


def name_of(path: Sequence[Any]) -> str:
  """Joins a key path of ``jax.tree_util`` into a name such as ``a/b/0``."""
  return '/'.join(
    [
      str(k.key)
      if type(k) is jax.tree_util.DictKey
      else str(getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k))))
      for k in path
    ]
  )


def named(
  tree: types.Tree, *, is_leaf: Callable[[Any], bool] | None = None
) -> dict[str, Any]:
  """Returns the leaves by name, in the tree's order.

  Args:
    tree: any pytree; ``None`` holds no leaf.
    is_leaf: nodes to stop at, as in ``jax.tree.leaves``.

  Returns:
    A dict from names ``'a/b/c'`` to leaves.

  Raises:
    ValueError: if two leaves have one name.

  Example:
    >>> named({'a': {'b': 1, 'c': [2, 3]}})
    {'a/b': 1, 'a/c/0': 2, 'a/c/1': 3}
  """
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
  by_name = {name_of(path): leaf for path, leaf in leaves}
  if len(by_name) < len(leaves):
    names = [name_of(path) for path, _ in leaves]
    twice = next(n for n in names if names.count(n) > 1)
    raise ValueError(f"two leaves are both named '{twice}': rename one")
  return by_name


def map_named(
  fn: Callable[..., Any],
  tree: types.Tree,
  *rest: types.Tree,
  is_leaf: Callable[[Any], bool] | None = None,
) -> types.Tree:
  """Maps ``fn(name, leaf, *rest)`` over a tree; ``fn`` runs on the host.

  Args:
    fn: any function; leaves on demand are passed unread.
    tree: any pytree.
    *rest: trees of which ``tree``'s structure is a prefix.
    is_leaf: nodes to stop at, as in ``jax.tree.map``.

  Returns:
    A tree of the results.

  Example:
    >>> map_named(lambda name, x: name + '!', {'a': {'b': 1}})
    {'a': {'b': 'a/b!'}}
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, *leaves: fn(name_of(path), *leaves),
    tree,
    *rest,
    is_leaf=is_leaf,
  )


def role(name: str) -> str:
  """Returns a name without its numbers, which equal leaves of layers share.

  Args:
    name: the name of a leaf.

  Returns:
    The name with ``#`` for each number.

  Example:
    >>> role('layers_11/attn/q')
    'layers_#/attn/q'
  """
  return _NUMBER.sub('#', name)


def compiled(pattern: str) -> re.Pattern[str]:
  """Compiles a regular expression.

  Args:
    pattern: the expression.

  Returns:
    The compiled pattern.

  Raises:
    ValueError: if it is malformed, with the position of the error.

  Example:
    >>> compiled('block_(')
    Traceback (most recent call last):
    ...
    ValueError: 'block_(' is no regular expression: missing ), unterminated ...
  """
  if not isinstance(pattern, (str, re.Pattern)):
    raise ValueError(
      f'a {type(pattern).__name__} is no regular expression: give text'
    )
  try:
    return re.compile(pattern)
  except re.error as error:
    raise ValueError(f"'{pattern}' is no regular expression: {error}") from None


def nearest(name: str, names: Sequence[str]) -> str:
  """Returns a hint for an error message: the closest of the known names.

  Args:
    name: the unknown name; other objects are compared by their text.
    names: the known names.

  Returns:
    `` (did you mean 'x'?)``, or an empty string if none is close.

  Example:
    >>> 'no leaf' + nearest('kernal', ['bias', 'kernel'])
    "no leaf (did you mean 'kernel'?)"
  """
  close = difflib.get_close_matches(str(name), names, n=1)
  return f" (did you mean '{close[0]}'?)" if close else ''


def in_order(names: Iterable[str]) -> list[str]:
  """Sorts names so that ``layers_10`` follows ``layers_2``.

  Args:
    names: names of leaves; numbers in them sort by value, before letters.

  Returns:
    The names in order.

  Example:
    >>> in_order(['b/10/w', 'b/2/w', 'a'])
    ['a', 'b/2/w', 'b/10/w']
  """
  given = list(names)
  # All names at once, since one call for each takes most of the time to open
  # 70,000 leaves. A number has zeros before it, and sorts before any letter.
  parts = _DIGITS.split('\n'.join(given))
  width = min(max(map(len, parts[1::2]), default=0), _DIGITS_PADDED)
  parts[1::2] = [f'\0{number.zfill(width)}' for number in parts[1::2]]
  keys = ''.join(parts).split('\n')
  if len(keys) != len(given):  # a line break in a name
    return sorted(given)
  return [given[i] for i in sorted(range(len(keys)), key=keys.__getitem__)]
