"""One member of a family of models, or a mixture of its members."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _stack
from wsl.merge._families import reversible, tall, twins
from wsl.merge._spectral import low_rank


def materialize(family: Any, task: Any) -> types.Delta:
  r"""Returns the task vector of one member of a family, or of a mixture.

  .. math:: \tau(t) = \hat\tau_t, \qquad
    \tau(w) = \sum_{t=1}^{T} w_t \hat\tau_t

  where the member :math:`\hat\tau_t` is

  ================================= ========================================
  family                            member
  ================================= ========================================
  ``tall_masks``                    :math:`m_t \odot \tau_{MT}`
  ``emr``                           :math:`\lambda_t m_t \odot \tau_{uni}`
  ``twins``                         :math:`\tau^* + v_t`
  ``rmm``                           :math:`\hat B_t \hat A_t`
  ``tsv_compress``, ``deltas.stack``  :math:`\tau_t`
  ``adapters.stack``                :math:`s_t B_t A_t`
  models of a ``search.Archive``    :math:`\theta_t`
  ================================= ========================================

  The points of a Pareto front are mixtures of a stack: ``materialize(deltas,
  front.points[i])``. Weights that depend on the input, such as those of
  ``route``, are mapped: ``jax.vmap(lambda w, x: apply_fn(deltas.apply(base,
  materialize(family, w)), x))``.

  Args:
    family: T members, see above.
    task: the index of a task, 0 .. T-1; or weights w, ``[T]``. Either may be
      traced. For ``twins`` the weights apply to v_t only; they sum to 1 in the
      paper.

  Returns:
    A task vector, every leaf ``[...]``; apply it with coefficient 1.

  Raises:
    ValueError: if there is no such task, or not one weight for each.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import merge
    >>> deltas = {'w': jnp.asarray([[1.0, 2.0], [3.0, 0.0]])}
    >>> family = merge.tall_masks(deltas, threshold=1)
    >>> materialize(family, 0)['w'].tolist()
    [0.0, 2.0]
    >>> materialize(deltas, [0.5, 0.5])['w'].tolist()
    [2.0, 1.0]

  Reference:
    Wang et al., 2024, arXiv:2405.07813; Huang et al., 2024, arXiv:2405.17461;
    Lu et al., 2024, arXiv:2406.15479; Alipour and Amiri, 2025,
    arXiv:2510.14163.

  Each family says how it differs from its official code.
  """
  selected = _selected(task, _count(family))
  if isinstance(family, tall.TallMasks):
    scales = {} if family.scales is None else {'scales': family.scales}
    masked = _masked if 'task' in selected else _mixed_masks
    return tree.map(masked, family.masks, family.merged, **selected, **scales)
  if isinstance(family, twins.Twins):
    exclusive = _members(family.exclusive, selected)
    return tree.map(_add, family.shared, exclusive)
  return _members(family, selected)


def _is_factored(x: Any) -> bool:
  """Returns True for a leaf that several arrays represent."""
  return isinstance(x, reversible.Reversible) or low_rank.is_factors(x)


def _count(family: Any) -> int:
  """Returns T, the number of members.

  Raises:
    ValueError: if leaves have different numbers of members.
  """
  if isinstance(family, tall.TallMasks):
    return int(min(x.shape[0] for x in jax.tree.leaves(family.masks)))
  members = family.exclusive if isinstance(family, twins.Twins) else family
  coordinates = lambda x: (
    (x.a.coefs, x.b.coefs) if isinstance(x, reversible.Reversible) else x
  )
  stacks = jax.tree.map(coordinates, members, is_leaf=_is_factored)
  return _stack.count('materialize', stacks)


def _selected(task: Any, models: int) -> dict[str, Any]:
  """Returns the checked index, or the weights, as hyperparameters."""
  if np.shape(task) == (models,):
    weights = task if isinstance(task, jax.Array) else np.asarray(task)
    return {'weights': weights}
  if np.ndim(task):
    raise ValueError(
      f'materialize: task has shape {np.shape(task)}, expected an index, or '
      f'({models},), a weight for each task'
    )
  tree.check_scalars('materialize', task=task)
  whole = task is not None and jnp.issubdtype(
    jnp.result_type(task), jnp.integer
  )
  traced = isinstance(task, jax.core.Tracer)
  if not whole or not (traced or 0 <= task < models):
    raise ValueError(
      f'materialize(task={task}): expected a task of 0 .. {models - 1}'
    )
  return {'task': task}


def _members(stacks: types.Tree, selected: dict[str, Any]) -> types.Delta:
  """Returns one member, or a mixture, of a tree of stacked leaves."""

  def member(x: Any) -> Any:
    if not _is_factored(x):
      return tree.apply_kernel(_pick, x, **selected)
    static: dict[str, Any] = {
      'shape': tree.Static(tuple(x.shape)),
      'view': tree.Static(x.view),
    }
    static |= selected
    if low_rank.is_factors(x):
      return tree.apply_kernel(_product, x.a, x.b, x.scale, **static)
    return tree.apply_kernel(_reverted, *x.a, *x.b, **static)

  return jax.tree.map(member, stacks, is_leaf=_is_factored)


def _pick(
  x: types.Array, *, task: Any = None, weights: types.Array | None = None
) -> types.Array:
  """Returns the entry of a task, or the weighted sum, of ``[T, ...]``."""
  if weights is None:
    return jax.lax.dynamic_index_in_dim(x, task, 0, keepdims=False)
  return _stack.sum_models(_stack.weigh(x, weights)).astype(x.dtype)


def _choice(
  stacks: tuple[types.Array, ...], task: Any, weights: types.Array | None
) -> tuple[tuple[types.Array, ...], types.Array]:
  """Returns the stacks of the members that are used, and their weights."""
  if weights is not None:
    return stacks, weights
  one = [jax.lax.dynamic_index_in_dim(x, task, 0) for x in stacks]
  return tuple(one), jnp.ones(1, stacks[0].dtype)


def _product(
  a: types.Array,
  b: types.Array,
  scale: types.Array,
  *,
  shape: tuple[int, ...],
  view: tree.Matrix,
  task: Any = None,
  weights: types.Array | None = None,
) -> types.Array:
  """Returns sum_t w_t s_t B_t A_t, one product of joined factors."""
  (p, q, scale), weights = _choice((a, b, scale), task, weights)
  p, q = tree.wide(p), tree.wide(q)
  p, q = (x[:, None] if x.ndim == 3 else x for x in (p, q))  # [T, G, ., .]
  factor = weights.astype(q.dtype) * scale.astype(q.dtype)
  left = jnp.moveaxis(q * _stack.expand_rank(factor, q), 0, -2)
  left = left.reshape(*left.shape[:2], -1)  # [G, out, T r]
  right = jnp.moveaxis(p, 0, 1).reshape(p.shape[1], -1, p.shape[-1])
  found = jnp.matrix_transpose(tree.matmul(left, right))
  return view.join(found, shape).astype(a.dtype)


def _reverted(
  *fields: types.Array,
  shape: tuple[int, ...],
  view: tree.Matrix,
  task: Any = None,
  weights: types.Array | None = None,
) -> types.Array:
  """Returns sum_t w_t B_t A_t of factors restored from their six fields."""
  bases = [reversible.Basis(*fields[i : i + 3]) for i in (0, 3)]
  coefs, weights = _choice(tuple(x.coefs for x in bases), task, weights)
  p, q = (reversible.restore(x, c) for x, c in zip(bases, coefs))
  ones = jnp.ones(len(q), q.dtype)
  found = _product(
    jnp.matrix_transpose(p), q, ones, shape=shape, view=view, weights=weights
  )
  return found.astype(fields[0].dtype)


def _masked(
  masks: types.Array,
  merged: types.Array,
  *,
  task: Any,
  scales: types.Array | None = None,
) -> types.Array:
  """Applies the mask and scale of one task to a leaf of the merged vector."""
  mask = jax.lax.dynamic_index_in_dim(masks, task, 0, keepdims=False)
  kept = jnp.where(mask, merged, jnp.zeros_like(merged))
  if scales is None:
    return kept
  wide = tree.wide(kept)
  scale = jax.lax.dynamic_index_in_dim(scales, task, 0, keepdims=False)
  return (wide * scale.astype(wide.dtype)).astype(merged.dtype)


def _mixed_masks(
  masks: types.Array,
  merged: types.Array,
  *,
  weights: types.Array,
  scales: types.Array | None = None,
) -> types.Array:
  """Returns sum_t w_t lambda_t m_t times a leaf of the merged vector."""
  wide = tree.wide(merged)
  number = lambda x: x.astype(wide.real.dtype)
  weights = number(weights) * (1 if scales is None else number(scales))
  share = _stack.sum_models(
    _stack.map_models(jnp.multiply, number(masks), weights)
  )
  return (share * wide).astype(merged.dtype)


def _add(shared: types.Array, exclusive: types.Array) -> types.Array:
  """Adds the shared part and an exclusive part in float32 or wider."""
  wide = tree.wide(shared)
  return (wide + exclusive.astype(wide.dtype)).astype(shared.dtype)
