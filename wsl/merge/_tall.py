"""TALL-masks: which entries of a merged task vector each task needs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _linear, _stack


class TallMasks(NamedTuple):
  """A family of T models: one merged task vector, and a mask for each task.

  Attributes:
    masks: bool, every leaf ``[T, ...]``.
    merged: the multi-task vector, every leaf ``[...]``.
  """

  masks: types.Deltas
  merged: types.Delta


def tall_masks(
  deltas: types.Deltas,
  *,
  threshold: Any,
  merged: types.Delta | None = None,
) -> TallMasks:
  r"""Marks the entries of the multi-task vector that each task needs.

  .. math:: m_t = 1\big[\, |\tau_t| > \lambda_t |\tau_{MT} - \tau_t| \,\big]

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    threshold: lambda >= 0, a number or ``[T]``, one for each task; larger keeps
      less. The authors choose it from 0.2 ... 0.6 on validation data.
    merged: the multi-task vector; the sum of the task vectors if left out.

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

  Differs from the official code in that the masks come from task vectors; the
  code compares parameters, so its masks carry the rounding of
  ``theta_0 + tau_MT``.
  """
  threshold = _thresholds('tall_masks', threshold, _stack.count(deltas))
  merged = _merged('tall_masks', deltas, merged)
  return TallMasks(
    tree.map(_masks, deltas, merged, threshold=threshold), merged
  )


def materialize(family: TallMasks, task: Any) -> types.Delta:
  r"""Returns the task vector of one member of a family.

  .. math:: \hat\tau_t = m_t \odot \tau_{MT}

  Args:
    family: T models in one, from ``tall_masks``.
    task: the number of the task, 0 .. T-1; may be traced.

  Returns:
    A task vector, every leaf ``[...]``; its scale in ``deltas.apply`` is 1.

  Raises:
    ValueError: if there is no such task.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, 2.0], [3.0, 0.0]])}
    >>> family = tall_masks(deltas, threshold=1)
    >>> materialize(family, 0)['w'].tolist()
    [0.0, 2.0]
  """
  models = min(x.shape[0] for x in jax.tree.leaves(family.masks))
  if not isinstance(task, jax.core.Tracer) and not 0 <= task < models:
    raise ValueError(
      f'materialize(task={task}): expected a task of 0 .. {models - 1}'
    )
  return tree.map(_masked, family.masks, family.merged, task=task)


def consensus(
  deltas: types.Deltas,
  *,
  threshold: Any,
  min_tasks: Any,
  merged: types.Delta | None = None,
) -> types.Delta:
  r"""Keeps the entries of the multi-task vector that several tasks need.

  .. math:: \tau_p = \tau_{MT,p} \, 1\big[\textstyle\sum_t m_{t,p} \ge k\big]

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    threshold: as in ``tall_masks``.
    min_tasks: k, how many tasks must need an entry: 2 drops what none or one
      needs (the paper), 1 what none needs, 0 nothing; may be traced.
    merged: the multi-task vector; the sum of the task vectors if left out.

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

  Differs from the official code as ``tall_masks`` does.
  """
  if not isinstance(min_tasks, jax.core.Tracer) and min_tasks < 0:
    raise ValueError(
      f'consensus(min_tasks={min_tasks}): expected a number of tasks >= 0'
    )
  threshold = _thresholds('consensus', threshold, _stack.count(deltas))
  merged = _merged('consensus', deltas, merged)
  return tree.map(
    _needed, deltas, merged, threshold=threshold, min_tasks=min_tasks
  )


def _masks(
  x: types.Array, merged: types.Array, *, threshold: types.Array
) -> types.Array:
  x = tree.wide(x)
  merged = merged.astype(x.dtype)
  needs = lambda x, bound: jnp.abs(x) > bound * jnp.abs(merged - x)
  return _stack.each(needs, x, threshold.astype(x.dtype))


def _masked(
  masks: types.Array, merged: types.Array, *, task: Any
) -> types.Array:
  mask = jax.lax.dynamic_index_in_dim(masks, task, 0, keepdims=False)
  return jnp.where(mask, merged, jnp.zeros_like(merged))


def _needed(
  x: types.Array,
  merged: types.Array,
  *,
  threshold: types.Array,
  min_tasks: Any,
) -> types.Array:
  masks = _masks(x, merged, threshold=threshold)
  min_tasks = jnp.asarray(min_tasks)
  number = lambda mask: mask.astype(min_tasks.dtype)
  needed = _stack.add_up(_stack.each(number, masks)) >= min_tasks
  return jnp.where(needed, merged, jnp.zeros_like(merged))


def _merged(
  label: str, deltas: types.Deltas, merged: types.Delta | None
) -> types.Delta:
  if merged is None:
    return _linear.sum(deltas)
  merged = _stack.per_leaf(f'{label}: merged', merged, deltas)
  found = tree.named(merged)
  for name, x in tree.named(deltas).items():
    if tuple(found[name].shape) != tuple(x.shape[1:]):
      raise ValueError(
        f"{label}: merged leaf '{name}' has shape {tuple(found[name].shape)}, "
        f'expected {tuple(x.shape[1:])}: give one merged task vector'
      )
  return merged


def _thresholds(label: str, threshold: Any, models: int) -> Any:
  if not isinstance(threshold, jax.core.Tracer):
    threshold = np.asarray(threshold, np.float64)
    if not np.all(threshold >= 0):
      raise ValueError(f'{label}(threshold={threshold}): expected numbers >= 0')
  return _stack.per_model(f'{label}: threshold', threshold, models)
