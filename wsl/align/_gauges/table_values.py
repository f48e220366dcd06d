"""Values of tables: permutations are bijections, actions are invertible.

JAX clamps or wraps an index that is out of range, and a scale of zero gives
infinite weights: both would change the function of a model silently.
"""

from typing import Any

import jax
import numpy as np

from wsl import types
from wsl.align import _symmetry

# Norms of the rows of a rotation in bfloat16 differ from 1 by 2 ** -9 at most.
_TOLERANCE = 1e-2


def check(
  argument: str, name: str, table: types.Array, action: _symmetry.Action | None
) -> None:
  """Checks the values of a table that are known.

  Args:
    argument: the name of the function and its argument in the message.
    name: of the group or the action.
    table: its table, of the right shape.
    action: the action; None for the permutation of a group.

  Raises:
    ValueError: naming the table and what is wrong with it.

  Example:
    >>> check('f: permutation', 'a:0', np.asarray([1, 0]), None)
    >>> check('f: permutation', 'a:0', np.asarray([1, 1]), None)
    Traceback (most recent call last):
    ...
    ValueError: f: permutation of 'a:0' is no order of 0 .. 1: an index is ...
  """
  if not hasattr(table, 'dtype'):
    raise ValueError(
      f"{argument} of '{name}' is a {type(table).__name__}: give an array"
    )
  if isinstance(table, jax.core.Tracer) or not getattr(
    table, 'is_fully_addressable', True
  ):
    return
  x = np.asarray(table)
  problem = _of_order(x) if action is None else _of_action(x, action)
  if problem:
    raise ValueError(f"{argument} of '{name}' {problem}")


def _of_order(x: np.ndarray) -> str | None:
  """Returns what is wrong with tables of indices ``[..., n]``."""
  if x.dtype.kind not in 'iu':
    return f'is of {x.dtype}: give indices of units, integers'
  if (np.sort(x, -1) != np.arange(x.shape[-1])).any():
    last = x.shape[-1] - 1
    return f'is no order of 0 .. {last}: an index is missing, or there twice'
  return None


def _of_action(x: np.ndarray, action: _symmetry.Action) -> str | None:
  """Returns what is wrong with the table of an action."""
  if x.dtype.kind in 'bOUS' or (x.dtype.kind == 'c' and action.kind != 'scale'):
    return f'is of {x.dtype}: give real numbers'
  if x.dtype.kind == 'c':
    right = np.isfinite(x).all() and x.all()
    return None if right else 'holds 0, NaN or infinite numbers'
  x = x.astype(np.promote_types(x.dtype, np.float32), copy=False)
  if not np.isfinite(x).all():
    return 'holds NaN or infinite numbers'
  if action.kind == 'sign':
    return None if (np.abs(x) == 1).all() else 'holds numbers that are no signs'
  if action.kind == 'scale':
    return None if (x > 0).all() else 'holds numbers that are not positive'
  if action.kind == 'phase':
    return None if np.any(x, -1).all() else 'holds the number 0'
  if action.kind == 'rotation':
    sums: list[Any] = [np.square(x).sum(axis) for axis in (-1, -2)]
    if any((np.abs(s - 1) > 2 * _TOLERANCE).any() for s in sums):
      return 'is not orthogonal'
  return None
