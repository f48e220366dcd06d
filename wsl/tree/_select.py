"""Leaves chosen by name: by a regular expression, a predicate, or rules."""

from collections.abc import Sequence
from typing import Any

import jax

from wsl import types
from wsl.tree import _names


def select(tree: types.Tree, leaves: types.Leaves) -> types.Tree:
  """Marks the leaves that match a regular expression or a predicate.

  Args:
    tree: any pytree of arrays.
    leaves: a regular expression searched in each name, or a predicate on
      (name, shape).

  Returns:
    The tree with a bool for each leaf.

  Raises:
    ValueError: if a regular expression is malformed, or matches no leaf.

  Example:
    >>> select({'head': {'w': 1}, 'body': {'w': 2}}, '^head/')
    {'body': {'w': False}, 'head': {'w': True}}
  """
  if callable(leaves):
    return _names.map_named(
      lambda name, x: bool(leaves(name, jax.numpy.shape(x))), tree
    )
  pattern = _names.compiled(leaves)
  chosen = _names.map_named(lambda name, _: bool(pattern.search(name)), tree)
  if not any(jax.tree.leaves(chosen)):
    raise ValueError(f"no leaf matches '{leaves}': {_examples(tree)}")
  return chosen


def layer(label: str, depth: str, name: str) -> int:
  r"""Returns the number that ``depth`` captures in a name, or -1.

  Args:
    label: prefix of the error messages.
    depth: a regular expression with one group.
    name: the leaf's name.

  Raises:
    ValueError: if there is not exactly one group, or it captures no number.

  Example:
    >>> layer('f', r'block_(\d+)/', 'block_3/w'), layer('f', '_(x)/', 'head')
    (3, -1)
  """
  pattern = _names.compiled(depth)
  if pattern.groups != 1:
    raise ValueError(
      f"{label}: expected one group that captures the block's number, such as "
      r"r'block_(\d+)/'"
    )
  match = pattern.search(name)
  if match and not match[1].isdigit():
    raise ValueError(
      f"{label}: captured '{match[1]}' in '{name}', expected a number"
    )
  return int(match[1]) if match else -1


def by_regex(tree: types.Tree, rules: Sequence[tuple[str, Any]]) -> types.Tree:
  """Assigns each leaf the value of the first rule that matches its name.

  A leaf without a rule is an error, and so is a rule without a leaf: no rule is
  silently ignored.

  Args:
    tree: any pytree.
    rules: pairs of a regular expression, searched in the name, and a value.

  Returns:
    The tree with a value for each leaf.

  Raises:
    ValueError: naming the leaf without a rule, the rule without a leaf, or the
      malformed expression.

  Example:
    >>> by_regex({'a': 0, 'b': 0}, [('a', 'first'), ('.*', 'rest')])
    {'a': 'first', 'b': 'rest'}
  """
  used = set()
  patterns = [(_names.compiled(pattern), result) for pattern, result in rules]

  def value(name: str, _: Any) -> Any:
    for i, (pattern, result) in enumerate(patterns):
      if pattern.search(name):
        used.add(i)
        return result
    raise ValueError(
      f"no rule covers leaf '{name}': add one, or a last rule ('.*', default)"
    )

  values = _names.map_named(value, tree)
  for i, (pattern, _) in enumerate(rules):
    if i not in used:
      raise ValueError(
        f"rule '{pattern}' covers no leaf that an earlier rule leaves: "
        f'{_examples(tree)}'
      )
  return values


def _examples(tree: types.Tree) -> str:
  """Lists the first names of a tree for an error message."""
  names = list(_names.named(tree))
  return f'the names are {names[:4]}' + (' ...' if len(names) > 4 else '')
