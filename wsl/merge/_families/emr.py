"""EMR-Merging: elect one task vector, mask and rescale it for each task."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._families import tall
from wsl.merge._sparse import elect, rank

_ENTRIES = tree.Entries(lead=1, neutral=0.0)


@deltas_lib.on_stacks
def emr(deltas: types.Deltas, *, dialect: str = 'paper') -> tall.TallMasks:
  r"""Elects one task vector, with a mask and a scale for each task.

  .. math:: \gamma = \operatorname{sgn} \sum_t \tau_t, \qquad
    \tau_{uni,p} = \gamma_p \max_{t: \tau_{t,p} \gamma_p > 0} |\tau_{t,p}|,

  .. math:: m_t = 1[\tau_t \odot \tau_{uni} > 0], \qquad
    \lambda_t = \frac{\sum_p |\tau_{t,p}|}
      {\sum_p m_{t,p} |\tau_{uni,p}|}, \qquad
    \hat\tau_t = \lambda_t \, m_t \odot \tau_{uni}

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    dialect: ``'paper'``, the formula; or ``'official'``, where both sums of
      lambda are sums over leaves of their mean magnitudes, so that an entry of
      a small leaf counts more, and :math:`\gamma` is -1 where a sum is 0.

  Returns:
    The family, with scales; ``materialize(family, task)`` gives the task vector
    of one task. A task that agrees nowhere has the scale 0.

  Raises:
    ValueError: if the dialect is unknown, or a leaf is complex.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, 4.0, 2.0], [3.0, -2.0, 0.0]])}
    >>> family = emr(deltas)
    >>> family.merged['w'].tolist()
    [3.0, 4.0, 2.0]
    >>> [round(x, 3) for x in family.scales.tolist()]
    [0.778, 1.667]

  Reference:
    Huang et al., "EMR-Merging: Tuning-Free High-Performance Model Merging",
    2024, arXiv:2405.17461.

  Differs from the official code as ``dialect`` says, and in the scale of a zero
  task vector, which is NaN there.
  """
  models = _stack.count('emr', deltas)
  elect.check_signs('emr', deltas)
  chunks = {'paper': {'entries': _ENTRIES}, 'official': {}}
  reduced: Any = _checks.choose('emr: dialect', dialect, chunks)

  def scales() -> Any:
    sums = tree.total(_magnitudes, deltas, dialect=dialect, **reduced)
    own, shared = sums
    xp = rank.array_module(own)
    return own / xp.where(shared == 0, xp.inf, shared)

  merged = tree.map(_unified, deltas, dialect=dialect)
  found = tree.statistic(scales, deltas, shape=(models,), dtype=np.float64)
  return tall.TallMasks(tree.map(_masks, deltas, merged), merged, found)


def _unified(x: types.Array, *, dialect: str) -> types.Array:
  """Returns the elected sign times the largest magnitude that has it."""
  wide = tree.wide(x)
  sign = elect.signs(x)
  if dialect == 'official':
    sign = jnp.where(sign == 0, -1, sign)
  agreeing = _stack.map_models(lambda y: jnp.maximum(y * sign, 0), wide)
  return (sign * _stack.max_models(agreeing)).astype(x.dtype)


def _masks(x: types.Array, merged: types.Array) -> types.Array:
  """Marks the entries of each model that have the elected sign."""
  # The product of two entries may underflow, that of their signs does not.
  sign = jnp.sign(merged)
  return _stack.map_models(lambda y: jnp.sign(y) * sign > 0, x)


def _magnitudes(x: types.Array, *, dialect: str) -> types.Array:
  """Sums the magnitudes of a leaf and those elected for them, ``[2, T]``."""
  merged = _unified(x, dialect=dialect)
  masks, magnitude = _masks(x, merged), jnp.abs(tree.wide(merged))
  shared = _stack.map_models(lambda m: jnp.where(m, magnitude, 0), masks)
  sums = [tree.sum_entries(v) for v in (jnp.abs(tree.wide(x)), shared)]
  size = max(x[0].size, 1) if dialect == 'official' else 1
  return jnp.stack(sums) / size
