"""Trim: keep the entries of largest magnitude."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _stack

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
  models = _stack.count(deltas)
  extra = _stack.one_of('trim: dialect', dialect, _EXTRA)
  _check_density(density, models)
  entries = lambda x: x.size // models

  def everywhere() -> types.Deltas:
    size = int(np.sum([entries(x) for x in jax.tree.leaves(deltas)]))
    kept = tree.kth_magnitude(deltas, _count(density, size, extra))
    return tree.map(_reach, deltas, threshold=kept)

  def in_each_leaf() -> types.Deltas:
    counts = jax.tree.map(lambda x: _count(density, entries(x), extra), deltas)
    kept = tree.read(tree.map(_threshold, deltas, counts))
    return jax.tree.map(
      lambda x, m: tree.apply_kernel(_reach, x, threshold=m), deltas, kept
    )

  scopes = {'global': everywhere, 'leaf': in_each_leaf}
  return _stack.one_of('trim: scope', scope, scopes)()


def _count(density: Any, size: int, extra: int) -> Any:
  if isinstance(density, jax.core.Tracer):
    traced = jnp.floor(density * size).astype(np.int32)
    return jnp.clip(traced + extra, 1, size)
  count = np.floor(np.asarray(density, np.float64) * size).astype(np.int64)
  return np.clip(count + extra, 1, size)


def _reach(x: types.Array, *, threshold: types.Array) -> types.Array:
  keep = lambda x, m: jnp.where(tree.reaches(x, m), x, jnp.zeros_like(x))
  return _stack.each(keep, x, threshold)


def _threshold(x: types.Array, count: types.Array) -> types.Array:
  if not x.size:
    return jnp.zeros(x.shape[:1], x.dtype)
  return tree.kth_magnitude(x, count)


def _check_density(density: Any, models: int) -> None:
  if isinstance(density, jax.core.Tracer):
    return
  values = np.asarray(density, np.float64)
  if not np.all((values > 0) & (values <= 1)):
    raise ValueError(
      f'trim(density={density}): density is the fraction kept, expected '
      '0 < density <= 1'
    )
  if values.shape not in ((), (models,)):
    raise ValueError(
      f'trim: density has shape {values.shape}, expected () or ({models},), '
      'one for each model'
    )
