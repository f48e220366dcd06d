"""Trim: keep the entries of largest magnitude."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._sparse import rank

# Entries kept beyond floor(density * entries).
_EXTRA = {'paper': 0, 'official': 1, 'mergekit': 0}


def trim(
  deltas: types.Deltas,
  *,
  density: Any,
  scope: str = 'global',
  dialect: str = 'paper',
) -> types.Deltas:
  r"""Keeps the entries of largest magnitude of each task vector.

  .. math:: \hat\tau_{t,p} = \tau_{t,p} \, 1[|\tau_{t,p}| \ge m_t],

  where m_t is the k-th largest magnitude of task vector t. All entries equal to
  it are kept, so ties may keep more than k.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: fraction of the d entries that is kept, ``0 < density <= 1``: one
      number, or ``[T]``, one for each model. Where traced, the count is rounded
      in the dtype of ``density``.
    scope: ``'global'`` ranks over the whole model (the paper), ``'leaf'``
      within each leaf (mergekit, PEFT).
    dialect: ``'paper'`` and ``'mergekit'`` keep ``k = floor(density * d)``
      entries, at least one; ``'official'`` keeps one more (``>=`` on the value
      below the cut).

  Returns:
    The trimmed task vectors, every leaf ``[T, ...]``.

  Raises:
    ValueError: if ``density`` is out of range, or an option is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, -4.0, 3.0, 0.5]])}
    >>> trim(deltas, density=0.5)['w'].tolist()
    [[0.0, -4.0, 3.0, 0.0]]

  Reference:
    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models",
    2023, arXiv:2306.01708, section 4.
  """
  return keep_largest(
    'trim', deltas, density=density, scope=scope, dialect=dialect
  )


def keep_largest(
  function: str,
  deltas: types.Deltas,
  *,
  density: Any,
  scope: str,
  dialect: str = 'paper',
) -> types.Deltas:
  """Trims, see ``trim``; messages name the public ``function``."""
  models = _stack.count(function, deltas)
  extra = _checks.choose(f'{function}: dialect', dialect, _EXTRA)
  density = _checks.numbers(f'{function}: density', density)
  check_density(function, density, models)

  def ranks(size: int) -> Sequence[Any]:
    (kept,) = rank.floors(size, density)
    return [rank.array_module(kept).clip(kept + extra, 1, size)]

  bounds = rank.magnitudes(function, deltas, ranks, scope=scope)
  return tree.map(_keep, deltas, bounds)


def check_density(function: str, density: Any, models: int) -> None:
  """Checks the fraction of entries kept, one number or ``[T]``.

  Raises:
    ValueError: if it is out of range, or of another shape.
  """
  meaning = 'density is the fraction kept'
  _checks.fraction(function, 'density', density, meaning, positive=True)
  _checks.shape_per_model(f'{function}: density', density, models)


def _keep(x: types.Array, bounds: types.Array) -> types.Array:
  """Zeroes the entries of each model below its threshold, ``[1, T]``."""
  keep = lambda x, m: jnp.where(tree.reaches(x, m), x, jnp.zeros_like(x))
  return _stack.map_models(keep, x, bounds[0])
