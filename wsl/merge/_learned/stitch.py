"""Localize-and-Stitch: each entry averaged over the tasks that need it."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _stack
from wsl.merge._sparse import elect, trim

# Entries kept beyond floor(density * entries): that code takes the magnitudes
# above that of the last of them.
EXTRA = {'paper': 0, 'official': -1}


@deltas_lib.on_stacks
def localize_and_stitch(
  deltas: types.Deltas,
  *,
  density: Any = None,
  masks: types.Tree = None,
  scope: str = 'global',
  dialect: str = 'paper',
) -> types.Delta:
  r"""Averages each entry over the tasks that localize it.

  .. math:: \tau_p = \frac{\sum_t m_{t,p} \, \tau_{t,p}}
    {\max(\sum_t m_{t,p}, 1)}

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    density: the fraction of entries that each mask keeps, the largest ones (the
      form of the paper without data), as in ``trim``. The authors take 0.01 to
      0.1.
    masks: m instead, a tree like ``deltas`` of bools or of zeros and ones, from
      ``localize``.
    scope: ``'global'`` or ``'leaf'``, as in ``trim``.
    dialect: ``'paper'`` keeps ``floor(density * d)`` of d entries, at least
      one; ``'official'`` those above the smallest of these, one less.

  Returns:
    The merged task vector, every leaf ``[...]``, to be applied with the
    coefficient 1. Entries that no mask has are 0.

  Raises:
    ValueError: if not exactly one of ``density`` and ``masks`` is given, or one
      is out of range or of another shape.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[4.0, 1.0, -3.0], [2.0, 0.0, 1.0]])}
    >>> localize_and_stitch(deltas, density=0.67)['w'].tolist()
    [3.0, 0.0, -1.0]

  Reference:
    He et al., "Localize-and-Stitch: Efficient Model Merging via Sparse Task
    Arithmetic", 2024, arXiv:2408.13656.

  Differs from the official code in that text embeddings and the last norm are
  leaves as all others: leave them out of ``deltas`` as that code does.
  """
  _stack.count('localize_and_stitch', deltas)
  if (density is None) == (masks is None):
    raise ValueError(
      'localize_and_stitch: give density or masks (from localize), one of them'
    )
  if masks is not None:
    masks = _stack.per_leaf('localize_and_stitch: the masks', masks, deltas)
    return tree.map_named(_stitched, deltas, masks)

  def steps(deltas: types.Deltas) -> types.Delta:
    bounds = trim.thresholds(
      'localize_and_stitch',
      deltas,
      density=density,
      scope=scope,
      dialect=dialect,
      dialects=EXTRA,
    )
    return elect.mean_nonzero(trim.keep_above(deltas, bounds))

  return _stack.fuse(deltas, steps)


def _stitched(name: str, x: types.Array, mask: Any) -> types.Array:
  """Averages a leaf over the models whose mask has an entry.

  Raises:
    ValueError: if the mask has another shape.
  """
  if np.shape(mask) != x.shape:
    raise ValueError(
      f"localize_and_stitch: the mask of leaf '{name}' has shape "
      f'{np.shape(mask)}, expected {x.shape}'
    )
  return tree.apply_kernel(_average, x, mask)


def _average(x: types.Array, mask: types.Array) -> types.Array:
  """Divides the sum of masked entries ``[T, ...]`` by the number of masks."""
  mask, wide = mask.astype(bool), tree.wide(x)
  wide = jnp.where(mask, wide, jnp.zeros_like(wide))
  count = _stack.sum_models(mask.astype(wide.real.dtype))
  return (_stack.sum_models(wide) / jnp.maximum(count, 1)).astype(x.dtype)
