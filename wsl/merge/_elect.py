"""Elect a sign for each entry, and average what agrees."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _stack


def elect_sign(deltas: types.Deltas, *, dialect: str = 'paper') -> types.Deltas:
  r"""Zeroes the entries whose sign differs from the sign of their sum.

  .. math:: \gamma_p = \operatorname{sgn} \sum_t \tau_{t,p}, \qquad
    \tau_{t,p} \mapsto \tau_{t,p} \, 1[\tau_{t,p} \gamma_p > 0]

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    dialect: the sign of a sum that is exactly zero. ``'paper'``: that of the
      majority of all signs, :math:`\operatorname{sgn} \sum_p \gamma_p`, and
      none if these balance; ``'official'``: the same, but negative if they
      balance (as the authors' code has it); ``'mergekit'``: positive.

  Returns:
    The agreeing entries, every leaf ``[T, ...]``.

  Raises:
    ValueError: if the dialect is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, -4.0], [-3.0, -2.0]])}
    >>> elect_sign(deltas)['w'].tolist()
    [[0.0, -4.0], [-3.0, -2.0]]

  Reference:
    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models",
    2023, arXiv:2306.01708, section 4.
  """
  _stack.count(deltas)
  default = {
    'paper': lambda: jnp.sign(tree.total(_votes, deltas)),
    'official': lambda: jnp.where(tree.total(_votes, deltas) > 0, 1, -1),
    'mergekit': lambda: 1,
  }
  cancelled = _stack.one_of('elect_sign: dialect', dialect, default)()
  return tree.map(_agreeing, deltas, cancelled=cancelled)


def mean_nonzero(deltas: types.Deltas) -> types.Delta:
  r"""Averages the entries that are not zero: the disjoint mean of TIES.

  .. math:: \tau_p = \frac{\sum_t \tau_{t,p}}
    {\max(1, |\{t : \tau_{t,p} \ne 0\}|)}

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.

  Returns:
    The merged task vector, every leaf ``[...]``.

  Example:
    >>> import jax.numpy as jnp
    >>> mean_nonzero({'w': jnp.asarray([[1.0, 0.0], [3.0, 0.0]])})['w'].tolist()
    [2.0, 0.0]

  Reference:
    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models",
    2023, arXiv:2306.01708, section 4.
  """
  _stack.count(deltas)
  return tree.map(_mean_nonzero, deltas)


def strongest(deltas: types.Deltas) -> types.Delta:
  """Keeps, of entries that share a sign, the one of largest magnitude."""
  return tree.map(_strongest, deltas)


def _signs(x: types.Array) -> types.Array:
  return jnp.sign(_stack.add_up(_stack.each(tree.wide, x)))


def _votes(x: types.Array) -> types.Array:
  return tree.sum_entries(_signs(x).astype(np.int32)[None])[0]


def _agreeing(x: types.Array, *, cancelled: Any) -> types.Array:
  sign = _signs(x)
  sign = jnp.where(sign == 0, jnp.asarray(cancelled).astype(sign.dtype), sign)
  agrees = lambda x: tree.wide(x) * sign > 0
  return _stack.each(lambda x: jnp.where(agrees(x), x, jnp.zeros_like(x)), x)


def _mean_nonzero(x: types.Array) -> types.Array:
  total = _stack.add_up(_stack.each(tree.wide, x))
  nonzero = lambda x: (x != 0).astype(total.dtype)
  count = _stack.add_up(_stack.each(nonzero, x))
  return (total / jnp.maximum(count, 1)).astype(x.dtype)


def _strongest(x: types.Array) -> types.Array:
  magnitude = jnp.max(jnp.abs(x), axis=0)
  return (_signs(x) * tree.wide(magnitude)).astype(x.dtype)
