"""Breadcrumbs: drop the outliers and the small entries of each task vector."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _per_leaf, _stack
from wsl.merge._sparse import rank, trim


@deltas_lib.on_stacks
def breadcrumbs(
  deltas: types.Deltas,
  *,
  density: Any,
  outliers: Any,
  scope: str = 'global',
) -> types.Deltas:
  r"""Keeps a band of magnitudes of each task vector, between two ranks.

  .. math:: \hat\tau_{t,p} = \tau_{t,p} \,
    1[\, b_t \le |\tau_{t,p}| < a_t \,]

  where a_t is the magnitude of rank :math:`k = \lfloor o d \rfloor` of the d
  magnitudes of task vector t in descending order, for a fraction o of outliers
  (:math:`a_t = \infty` if k = 0), and b_t is that of rank
  :math:`k + \max(1, \lfloor \rho d \rfloor)`, for the density :math:`\rho`. So
  the largest ``outliers`` and the smallest ``1 - density - outliers`` fraction
  are dropped. Entries of one magnitude are kept or dropped together: those
  equal to a_t are outliers, those equal to b_t are kept.

  It edits task vectors, as ``trim`` does: follow it by any merge. The paper's
  method is ``sum(breadcrumbs(..., scope='leaf'))``.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: fraction of the d entries that is kept, ``0 < density <= 1``: one
      number, ``[T]``, or in scope ``'leaf'`` one for each leaf, as in ``trim``.
      Where traced, counts are rounded in the dtype of the fractions.
    outliers: fraction of the d entries that is dropped for being the largest,
      ``0 <= outliers <= 1 - density``, in the forms of ``density``. At 0 the
      result is that of ``trim``. The authors drop 1 % or less.
    scope: ``'global'`` ranks over the whole model, ``'leaf'`` within each leaf
      (the paper, mergekit). A leaf of fewer than ``1 / outliers`` entries has
      no outliers.

  Returns:
    The sparse task vectors, every leaf ``[T, ...]``.

  Raises:
    ValueError: if a fraction is out of range, both exceed 1 together, or
      ``scope`` is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, -4.0, 3.0, 0.5]])}
    >>> breadcrumbs(deltas, density=0.5, outliers=0.25)['w'].tolist()
    [[1.0, 0.0, 3.0, 0.0]]

  Reference:
    Davari and Belilovsky, "Model Breadcrumbs: Scaling Multi-Task Model Merging
    with Sparse Masks", 2023, arXiv:2312.06795.

  Differs from mergekit, whose ``gamma`` is ``outliers``, where both fractions
  exceed 1 together: that code lowers the outliers, this is an error here.
  """
  models = _stack.count('breadcrumbs', deltas)
  _per_leaf.one_scope('breadcrumbs', scope, outliers=outliers)
  meaning = 'outliers is the fraction dropped for being the largest'
  kept = trim.densities('breadcrumbs', deltas, density, scope)
  dropped = _per_leaf.at_leaves(
    'breadcrumbs',
    'outliers',
    outliers,
    deltas,
    models,
    lambda value: _checks.fraction('breadcrumbs', 'outliers', value, meaning),
    copied=False,
  )
  both = f'(density={density}, outliers={outliers})'
  _check_sums(both if len(both) < 80 else '', kept, dropped)
  known = not any(
    isinstance(v, jax.core.Tracer) for v in jax.tree.leaves(dropped)
  )
  if known and not any(map(np.any, jax.tree.leaves(dropped))):
    return trim.keep('breadcrumbs', deltas, kept, scope=scope)

  def ranks(size: int, outliers: Any, density: Any) -> Sequence[Any]:
    largest, kept = rank.floors(size, outliers, density)
    xp = rank.array_module(kept)
    first = xp.clip(largest, 0, size - 1)
    return first, xp.clip(first + xp.maximum(kept, 1), 1, size)

  bounds = rank.magnitudes(
    'breadcrumbs', deltas, ranks, dropped, kept, scope=scope
  )
  return tree.map(_keep_band, deltas, bounds)


def _keep_band(x: types.Array, bounds: types.Array) -> types.Array:
  """Keeps the entries of each model from bounds[1] up to below bounds[0]."""

  def keep(x: types.Array, above: types.Array, low: types.Array) -> types.Array:
    inside = tree.reaches(x, low) & ~tree.reaches(x, above)
    return jnp.where(inside, x, jnp.zeros_like(x))

  return _stack.map_models(keep, x, *bounds)


def _check_sums(given: str, density: types.Tree, outliers: types.Tree) -> None:
  """Checks that the fractions kept and dropped of each leaf sum to <= 1."""
  for kept, dropped in zip(*map(jax.tree.leaves, (density, outliers))):
    if any(isinstance(v, jax.core.Tracer) for v in (kept, dropped)):
      return
    both = np.asarray(kept, np.float64) + np.asarray(dropped, np.float64)
    if np.any(both > 1 + 1e-12):  # such as 0.7 + 0.3, which may round up
      raise ValueError(
        f'breadcrumbs{given}: the fractions kept and dropped exceed 1 '
        'together, expected density + outliers <= 1'
      )
