"""Hyperparameters that are numbers: one of them, or one for each leaf.

A list or an array in place of a number would broadcast over the last axis of
every leaf, and a NaN would pass every comparison with a bound. Values are
unknown in a trace, shapes are not: what is known is checked.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from wsl import types
from wsl.tree import _map, _names, _select

_SEVERAL = 'use jax.vmap over several'
_ONE = 'give one number for each leaf'
PER_LEAF = (
  'per leaf give {regex: number}, per model merge.weighted_mean, several '
  'jax.vmap'
)


def check_scalars(
  function: str, *, remedy: str = _SEVERAL, **values: Any
) -> None:
  """Checks that hyperparameters are real numbers, traced or not.

  Args:
    function: the public function, as the user called it.
    remedy: how to give several numbers, for the message.
    **values: the arguments by name; ``None`` passes.

  Raises:
    ValueError: naming the argument and its shape or type, or that it is NaN.

  Example:
    >>> import jax.numpy as jnp
    >>> check_scalars('slerp', t=0.5, lerp_above=jnp.asarray(1.0))
    >>> check_scalars('slerp', t=[0.1, 0.5])
    Traceback (most recent call last):
    ...
    ValueError: slerp: t has shape (2,), expected a number: use jax.vmap ...
  """
  for name, value in values.items():
    problem = None if value is None else _problem(value)
    if problem:
      raise ValueError(
        f'{function}: {name} {problem}, expected a number: {remedy}'
      )


def check_whole(function: str, **values: Any) -> None:
  """Checks that counts are integers that are known; ranges are not checked.

  Args:
    function: the public function, as the user called it.
    **values: the arguments by name; ``None`` passes.

  Raises:
    ValueError: naming the argument, and what it is instead.

  Example:
    >>> check_whole('advance', steps=3)
    >>> check_whole('advance', steps=2.5)
    Traceback (most recent call last):
    ...
    ValueError: advance: steps is 2.5, expected an integer
  """
  for name, value in values.items():
    if value is None:
      continue
    problem = _problem(value)
    if not problem and isinstance(value, jax.core.Tracer):
      problem = 'is traced and sets the program'
    if not problem and not jnp.issubdtype(jnp.result_type(value), jnp.integer):
      problem = f'is {value}'
    if problem:
      raise ValueError(f'{function}: {name} {problem}, expected an integer')


def scalars(
  function: str,
  name: str,
  values: Any,
  tree: types.Tree,
  *,
  remedy: str = PER_LEAF,
) -> types.Tree:
  r"""Returns one number for each leaf of a tree.

  ``values`` takes one of three forms:

  - a number, for all leaves;
  - a prefix tree: a tree with numbers at nodes of ``tree``, each of which
    applies to all leaves below it, ``{'encoder': 0.3, 'head': 1.0}``;
  - a dict from regular expressions, searched in the names of leaves in this
    order, to numbers, ``{r'layers_(\d+)/attn': 0.3, '.*': 0.5}``; every leaf
    needs a rule and every rule a leaf, as in ``by_regex``.

  A dict is read as a prefix tree if its keys are those of nodes that cover the
  tree. If it can be read as rules as well, and the two readings differ for some
  leaf, it is refused.

  Args:
    function: the public function, as the user called it.
    name: the argument that holds the values.
    values: the numbers; they may be traced.
    tree: a pytree; ``None`` is no leaf.
    remedy: how to give several numbers, for the message.

  Returns:
    A tree of ``tree``'s structure with a number at each leaf.

  Raises:
    ValueError: naming the argument, and the leaf or rule that does not fit.

  Example:
    >>> x = {'a': {'attn': 0, 'mlp': 0}, 'head': 0}
    >>> scalars('apply', 'coef', {'attn': 0.3, '.*': 0.5}, x)
    {'a': {'attn': 0.3, 'mlp': 0.5}, 'head': 0.5}
    >>> scalars('apply', 'coef', {'a': 0.3, 'head': 0.5}, x)
    {'a': {'attn': 0.3, 'mlp': 0.3}, 'head': 0.5}
  """
  if not _is_tree(values, tree):
    check_scalars(function, remedy=remedy, **{name: values})
    return jax.tree.map(lambda _: values, tree)
  numbers = _names.named(values)
  nodes = _map.nodes_of_leaves(list(numbers), tree)
  flat = isinstance(values, Mapping) and not any(
    isinstance(value, Mapping) for value in values.values()
  )
  if nodes is None and not flat:
    raise ValueError(f'{function}: {name}: {_map.misfit(values, tree)}')
  numbers = dict(values) if nodes is None else numbers
  for place, number in numbers.items():
    check_scalars(function, remedy=_ONE, **{f'{name}[{place!r}]': number})
  rules = None
  if flat:
    try:
      rules = _select.by_regex(tree, [(str(key), key) for key in values])
    except ValueError as error:
      if nodes is None:
        raise ValueError(f'{function}: {name}: {error}') from None
  _check_unambiguous(f'{function}: {name}', nodes, rules)
  chosen = rules if nodes is None else nodes
  return jax.tree.map(lambda place: numbers[place], chosen)


def _problem(value: Any) -> str | None:
  """Describes why a value is no real number; ``None`` if it is one."""
  shape = _shape(value)
  if shape is None:
    return f'is of type {type(value).__name__}'
  if shape:
    return f'has shape {shape}'
  dtype = getattr(value, 'dtype', type(value))
  if jnp.issubdtype(dtype, jnp.complexfloating):
    return 'is complex'
  known = not isinstance(value, jax.core.Tracer)
  return 'is NaN' if known and bool(value != value) else None


def _shape(value: Any) -> tuple[int, ...] | None:
  """Returns the shape of a number, an array or nested lists of them."""
  if isinstance(value, (list, tuple)):
    inner = _shape(value[0]) if value else ()
    return None if inner is None else (len(value), *inner)
  if hasattr(value, 'dtype'):
    return tuple(value.shape)
  return () if isinstance(value, (int, float, complex)) else None


def _is_tree(values: Any, tree: types.Tree) -> bool:
  """Returns True for a container of numbers that is no list of them.

  A list is a prefix tree only of a tree whose root is a list of that length.
  """
  if isinstance(values, (list, tuple)):
    return isinstance(tree, (list, tuple)) and len(tree) == len(values)
  return not jax.tree_util.all_leaves([values])


def _check_unambiguous(
  label: str, nodes: types.Tree | None, rules: types.Tree | None
) -> None:
  """Refuses a dict that gives a leaf different numbers in its two readings."""
  if nodes is None or rules is None:
    return
  by_rule = _names.named(rules)
  for leaf, node in _names.named(nodes).items():
    if node != str(by_rule[leaf]):
      raise ValueError(
        f"{label}: leaf '{leaf}' is below the node '{node}' and matches the "
        f"rule '{by_rule[leaf]}' first: write '^{node}/' for a rule"
      )
