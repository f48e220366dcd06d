"""Hyperparameters that may differ between leaves."""

from collections.abc import Callable
from typing import Any

import jax

from wsl import tree, types
from wsl.merge import _checks


def at_leaves(
  function: str,
  name: str,
  values: Any,
  deltas: types.Deltas,
  models: int,
  check: Callable[[Any], None],
  *,
  copied: bool = True,
) -> types.Tree:
  """Returns the value of a hyperparameter at each leaf, ``[T]``.

  Args:
    function: the public function, as the user called it.
    name: the argument.
    values: a number, ``[T]``, or one number for each leaf as in
      ``tree.scalars``; a list always has one number for each model.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    models: T.
    check: raises for a value that is out of range.
    copied: whether kernels of leaves use the value, see ``tree.at_leaves``;
      otherwise a known value stays known in a trace.

  Raises:
    ValueError: naming the function, the argument and the leaf or the shape.
  """
  label = f'{function}: {name}'
  if not is_per_leaf(values):
    values = _checks.numbers(label, values)
    check(values)
    value = _checks.per_model(label, values, models)
    if not copied:
      return jax.tree.map(lambda _: value, deltas)
    return tree.at_leaves(value, deltas)
  found = tree.scalars(function, name, values, deltas)
  check_each(found, check)
  return jax.tree.map(
    lambda value: _checks.per_model(label, value, models), found
  )


def number_at_leaves(
  function: str,
  name: str,
  values: Any,
  deltas: types.Deltas,
  check: Callable[[str, str, Any], None] = lambda *_: None,
) -> types.Tree:
  """Returns the number that a hyperparameter is at each leaf.

  Args:
    function: the public function, as the user called it.
    name: the argument.
    values: a number, or one for each leaf as in ``tree.scalars``.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    check: ``check(function, name, value)`` raises out of range.

  Raises:
    ValueError: naming the function, the argument and the leaf or the shape.
  """
  found = tree.scalars(
    function, name, values, deltas, remedy='per leaf give {regex: number}'
  )
  check_each(found, lambda value: check(function, name, value))
  return found


def check_each(values: types.Tree, check: Callable[[Any], None]) -> None:
  """Checks the value of each leaf; values of one object are checked once."""
  for value in {id(v): v for v in jax.tree.leaves(values)}.values():
    check(value)


def is_per_leaf(values: Any) -> bool:
  """Returns True for a tree of values, where a list is none of leaves."""
  several = isinstance(values, (list, tuple, type(None)))
  return not several and not jax.tree_util.all_leaves([values])


def one_scope(function: str, scope: str, **values: Any) -> None:
  """Checks that what the whole model shares is not given for each leaf.

  Raises:
    ValueError: naming the argument, and the scope in which leaves may differ.
  """
  for name, value in values.items():
    if scope == 'global' and is_per_leaf(value):
      raise ValueError(
        f"{function}: {name} has a value for each leaf, but scope='global' "
        "counts over the whole model: take scope='leaf'"
      )
