"""TALL-masks: the entries of a merged task vector that each task uses."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _linear, _per_leaf, _stack


class TallMasks(NamedTuple):
  """A family of T models: one merged task vector and T masks.

  Attributes:
    masks: bool, every leaf ``[T, ...]``.
    merged: the multi-task vector, every leaf ``[...]``.
    scales: a factor for each model, ``[T]``, from ``emr``; or None.
  """

  masks: types.Deltas
  merged: types.Delta
  scales: Any = None


@deltas_lib.on_stacks
def tall_masks(
  deltas: types.Deltas,
  *,
  threshold: Any,
  merged: types.Delta | None = None,
) -> TallMasks:
  r"""Computes the mask of multi-task vector entries for each task.

  .. math:: m_t = 1\big[\, |\tau_t| > \lambda_t |\tau_{MT} - \tau_t| \,\big]

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    threshold: lambda >= 0: a number; ``[T]``, one for each task; or one for
      each leaf, ``{'attn': 0.2, '.*': 0.4}``, as in ``tree.scalars``. A larger
      one keeps fewer entries. The authors choose from 0.2 ... 0.6 on validation
      data.
    merged: the multi-task vector; by default the sum of the task vectors.

  Returns:
    The family; ``materialize(family, task)`` gives the task vector of one task.

  Raises:
    ValueError: if ``threshold`` is negative or of another shape.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, 2.0], [3.0, 0.0]])}
    >>> family = tall_masks(deltas, threshold=1)
    >>> family.masks['w'].tolist()
    [[False, True], [True, False]]

  Reference:
    Wang et al., "Localizing Task Information for Improved Model Merging and
    Compression", 2024, arXiv:2405.07813.

  Differs from the official code in that masks are computed from task vectors;
  that code compares parameters, so its masks include the rounding error of
  ``theta_0 + tau_MT``.
  """
  bounds = _thresholds('tall_masks', threshold, deltas)
  merged = _merged('tall_masks', deltas, merged)
  masks = lambda x, merged, bound: tree.apply_kernel(
    _masks, x, merged, threshold=bound
  )
  found = _stack.fuse(
    (deltas, merged), lambda both: jax.tree.map(masks, *both, bounds)
  )
  return TallMasks(found, merged)


@deltas_lib.on_stacks
def consensus(
  deltas: types.Deltas,
  *,
  threshold: Any,
  min_tasks: Any,
  merged: types.Delta | None = None,
) -> types.Delta:
  r"""Keeps the entries of the multi-task vector that several masks contain.

  .. math:: \tau_p = \tau_{MT,p} \, 1\big[\textstyle\sum_t m_{t,p} \ge k\big]

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    threshold: as in ``tall_masks``.
    min_tasks: k, the number of masks that must contain an entry: 2 drops
      entries of no mask or one (the paper), 1 those of none, 0 keeps all: a
      number, or one for each leaf, as in ``tree.scalars``; may be traced.
    merged: the multi-task vector; by default the sum of the task vectors.

  Returns:
    The merged task vector, every leaf ``[...]``.

  Raises:
    ValueError: if ``threshold`` or ``min_tasks`` is negative.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, 2.0], [1.0, 0.1]])}
    >>> consensus(deltas, threshold=0.5, min_tasks=2)['w'].tolist()
    [2.0, 0.0]

  Reference:
    Wang et al., "Localizing Task Information for Improved Model Merging and
    Compression", 2024, arXiv:2405.07813.

  Differs from the official code in the same way as ``tall_masks``.
  """
  bounds = _thresholds('consensus', threshold, deltas)
  counts = _per_leaf.number_at_leaves(
    'consensus', 'min_tasks', min_tasks, deltas, _checks.at_least_zero
  )
  merged = _merged('consensus', deltas, merged)
  needed = lambda x, merged, bound, count: tree.apply_kernel(
    _needed, x, merged, threshold=bound, min_tasks=count
  )
  return _stack.fuse(
    (deltas, merged), lambda both: jax.tree.map(needed, *both, bounds, counts)
  )


def _masks(
  x: types.Array, merged: types.Array, *, threshold: types.Array
) -> types.Array:
  """Returns the masks of a leaf, ``[T, ...]``.

  The best mask would minimise |m tau_MT - tau_t|_1, entry by entry: keep where
  |tau_MT - tau_t| < |tau_t|. The paper relaxes it by a factor lambda for each
  task; the strict inequality drops entries where both sides are 0.
  """
  x = tree.wide(x)
  merged = merged.astype(x.dtype)
  needs = lambda x, bound: jnp.abs(x) > bound * jnp.abs(merged - x)
  return _stack.map_in_turn(needs, x, threshold.astype(x.real.dtype))


def _needed(
  x: types.Array,
  merged: types.Array,
  *,
  threshold: types.Array,
  min_tasks: Any,
) -> types.Array:
  """Keeps the entries of a leaf that at least ``min_tasks`` masks contain."""
  masks = _masks(x, merged, threshold=threshold)
  min_tasks = jnp.asarray(min_tasks)
  number = lambda mask: mask.astype(min_tasks.dtype)
  needed = _stack.sum_in_turn(_stack.map_in_turn(number, masks)) >= min_tasks
  return jnp.where(needed, merged, jnp.zeros_like(merged))


def _merged(
  label: str, deltas: types.Deltas, merged: types.Delta | None
) -> types.Delta:
  """Returns the given multi-task vector after a check, or the sum."""
  if merged is None:
    return _linear.sum(deltas)
  return _stack.one_delta(f'{label}: merged', merged, deltas)


def _thresholds(label: str, threshold: Any, deltas: types.Deltas) -> types.Tree:
  """Returns the checked thresholds of each leaf, ``[T]``."""
  models = _stack.count(label, deltas)
  check = functools.partial(_checks.at_least_zero, label, 'threshold')
  return _per_leaf.at_leaves(
    label, 'threshold', threshold, deltas, models, check
  )
