"""Trees of the same leaves in containers of different types.

Dicts, ``OrderedDict`` and ``FrozenDict`` with the same keys hold the same
parameters, so one takes the place of another. A list is no tuple, and a
dataclass is no dict, to ``jax.tree``: such trees are converted by ``like``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from wsl import types
from wsl.tree import _names

_REMEDY = 'convert it by tree.like(base, other)'


def like(base: types.Tree, other: types.Tree) -> types.Tree:
  """Returns the leaves of ``other`` in the containers of ``base``, by name.

  It converts between dicts, FrozenDicts, lists, tuples and dataclasses, and
  between nested and flat trees. Names are compared exactly. Only if they
  differ, ``a.b`` is read as ``a/b``, and ``a/value``, the name of a parameter
  in an ``nnx.State``, as ``a``.

  Args:
    base: a tree of the wanted structure; its leaves are not used.
    other: a tree with the same names of leaves, in any order.

  Returns:
    A tree of ``base``'s structure with the leaves of ``other``.

  Raises:
    ValueError: naming the first leaf that only one of them has.

  Example:
    >>> like({'a': {'b': 0, 'c': (0,)}}, {'a.c.0': 1, 'a.b': 2})
    {'a': {'b': 2, 'c': (1,)}}
  """
  leaves, wanted = _names.named(other), list(_names.named(base))
  if set(leaves) != set(wanted):
    ours, theirs = _aliases(leaves), _aliases(wanted)
    if set(ours) != set(theirs):
      _check_leaves('like: other', ours, 'base', theirs)
    leaves = {theirs[alias]: leaves[name] for alias, name in ours.items()}
  return jax.tree.unflatten(
    jax.tree.structure(base), [leaves[name] for name in wanted]
  )


def common(
  base: types.Tree, other: types.Tree
) -> tuple[dict[str, Any], list[str]]:
  """Returns the leaves of ``other`` that the base has too, and the rest.

  Args:
    base: a tree of the wanted names.
    other: a tree whose names may be dotted or nested, see ``like``.

  Returns:
    The leaves by the base's names, and the names of the leaves that the base
    lacks.

  Example:
    >>> common({'a': {'b': 0}, 'c': 0}, {'a.b': 1, 'd': 2})
    ({'a/b': 1}, ['d'])
  """
  leaves = _names.named(other)
  ours, theirs = _aliases(leaves), _aliases(_names.named(base))
  found = {
    name: leaves[ours[alias]] for alias, name in theirs.items() if alias in ours
  }
  return found, [name for alias, name in ours.items() if alias not in theirs]


def conform(
  label: str,
  found: types.Tree,
  other_label: str,
  wanted: types.Tree,
  *,
  is_leaf: Callable[[Any], bool] | None = None,
) -> types.Tree:
  """Returns ``found`` in the containers of ``wanted``, or explains why not.

  Mappings of different types with the same keys, in any order, are converted;
  any other difference is an error.

  Args:
    label: the first tree's name in error messages.
    found: any pytree.
    other_label: the second tree's name.
    wanted: the tree whose structure is expected.
    is_leaf: nodes to stop at, as in ``jax.tree.leaves``.

  Returns:
    The leaves of ``found`` in the structure of ``wanted``.

  Raises:
    ValueError: of at most 200 characters, naming the first leaf that only one
      of them has, or the first container of another type.

  Example:
    >>> conform('a', {'x': [1]}, 'b', {'x': (0,)})
    Traceback (most recent call last):
    ...
    ValueError: a: 'x' is a list, in b a tuple: convert it by ...
  """
  structure: Any = jax.tree.structure(wanted, is_leaf=is_leaf)
  if jax.tree.structure(found, is_leaf=is_leaf) == structure:
    return found
  ours = _names.named(found, is_leaf=is_leaf)
  theirs = _names.named(wanted, is_leaf=is_leaf)
  _check_leaves(label, ours, other_label, theirs)
  difference = _difference('', found, wanted, other_label, is_leaf)
  if difference:
    raise ValueError(f'{label}: {difference}: {_REMEDY}')
  return jax.tree.unflatten(structure, [ours[name] for name in theirs])


def check_names(
  label: str,
  found: types.Tree,
  other_label: str,
  wanted: types.Tree,
  *,
  is_leaf: Callable[[Any], bool] | None = None,
) -> None:
  """Checks that two trees have the same leaves in like containers.

  Args:
    label: the name of ``found`` in error messages.
    found: the tree to check, any pytree.
    other_label: the name of ``wanted`` in error messages.
    wanted: the tree whose leaves and containers are expected.
    is_leaf: see ``conform``.

  Raises:
    ValueError: as ``conform``.

  Example:
    >>> check_names('a', {'kernal': 0}, 'b', {'kernel': 0})
    Traceback (most recent call last):
    ...
    ValueError: a: no leaf 'kernel' as in b (did you mean 'kernal'?): ...
  """
  conform(label, found, other_label, wanted, is_leaf=is_leaf)


def _check_leaves(
  label: str, ours: Mapping[str, Any], other_label: str, theirs: Any
) -> None:
  """Checks that two sets of names are equal."""
  missing = next((name for name in theirs if name not in ours), None)
  extra = next((name for name in ours if name not in theirs), None)
  if missing is None and extra is None:
    return
  one, other = _aliases(ours), _aliases(theirs)
  if set(one) == set(other):
    alias = next(a for a in one if one[a] != other[a])
    raise ValueError(
      f"{label}: leaf '{_short(one[alias])}' is '{_short(other[alias])}' in "
      f'{other_label}: {_REMEDY}'
    )
  if missing is not None:
    hint = _names.nearest(missing, list(ours)) if len(missing) < 40 else ''
    raise ValueError(
      f"{label}: no leaf '{_short(missing)}' as in {other_label}{hint}: give "
      'trees of one structure (are the heads left out?)'
    )
  raise ValueError(
    f"{label}: a leaf '{_short(str(extra))}' that is not in {other_label}: "
    'take it out'
  )


def _difference(
  place: str,
  found: types.Tree,
  wanted: types.Tree,
  other_label: str,
  is_leaf: Callable[[Any], bool] | None,
) -> str | None:
  """Describes the first pair of nodes that are not interchangeable."""
  structures: list[Any] = [
    jax.tree.structure(x, is_leaf=is_leaf) for x in (found, wanted)
  ]
  if structures[0] == structures[1]:
    return None
  name = _place(place)
  ours, theirs = _children(found), _children(wanted)
  mappings = isinstance(found, Mapping) and isinstance(wanted, Mapping)
  if not mappings and type(found) is not type(wanted):
    kinds = type(found).__name__, type(wanted).__name__
    return f'{name} is a {kinds[0]}, in {other_label} a {kinds[1]}'
  for one, other, where in (
    (theirs, ours, 'lacks'),
    (ours, theirs, f'has, unlike in {other_label},'),
  ):
    for key in one:
      if key not in other:
        return f'{name} {where} the key {_short(repr(_key(key)))}'
  for key, child in ours.items():
    below = '/'.join(filter(None, [place, _names.name_of([key])]))
    deeper = _difference(below, child, theirs[key], other_label, is_leaf)
    if deeper:
      return deeper
  if not mappings:
    kind = type(found).__name__
    return f'{name} is a {kind} with other static fields than in {other_label}'
  return None


def _place(name: str) -> str:
  """Quotes the name of a node for a message."""
  return f"'{_short(name)}'" if name else 'the tree'


def _key(entry: Any) -> Any:
  """Returns the key, the field or the index of an entry of a key path."""
  fields = ('key', 'name', 'idx')
  return next((getattr(entry, f) for f in fields if hasattr(entry, f)), entry)


def _children(node: Any) -> dict[Any, Any]:
  """Returns the children of a node by their keys; a leaf has none."""
  pairs = jax.tree_util.tree_leaves_with_path(
    node, is_leaf=lambda x: x is not node
  )
  return {path[0]: child for path, child in pairs if path}


def _aliases(names: Any) -> dict[str, str]:
  """Returns names by their form without dots and nnx's ``value``.

  Names stay as they are where two of them would become one.
  """
  plain = lambda name: name.replace('.', '/').removesuffix('/value')
  aliases = {plain(name): name for name in names}
  return aliases if len(aliases) == len(names) else {n: n for n in names}


def _short(name: str) -> str:
  """Returns the end of a long name, so that a message stays one line."""
  return name if len(name) <= 60 else f'...{name[-57:]}'
