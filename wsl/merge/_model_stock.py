"""Model Stock: a mean that is pulled to the base by the angle of the models."""

from typing import Any

import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _checks, _linear, _stack

# The least product of norms in mergekit's cosine.
_FLOOR = {'paper': 0.0, 'mergekit': 1e-6, 'fusionbench': 0.0}


def model_stock(
  deltas: types.Deltas, *, axis: int | None = None, dialect: str = 'paper'
) -> types.Delta:
  r"""Averages task vectors and scales the mean by the angle between them.

  .. math:: \tau = \frac{T c}{1 + (T - 1) c} \cdot
    \frac{1}{T} \sum_t \tau_t, \qquad
    c = \operatorname{mean}_{s < t} \cos\angle(\tau_s, \tau_t)

  in each leaf. The factor is that of the point of the plane of the models that
  is nearest to their centre, if they lie on a sphere around it.

  Args:
    deltas: stacked task vectors of T >= 2 models, every leaf ``[T, ...]``.
    axis: the axis of the leaf ``[...]`` along which vectors lie, so that each
      row or column has an angle of its own; None flattens the leaf. Leaves of
      fewer than two axes are flattened. mergekit's ``filter_wise`` is -1.
    dialect: ``'paper'``: the mean of the cosines. ``'mergekit'``: the same,
      with products of norms below 1e-6 replaced by 1e-6, which pulls small
      leaves to the base. ``'fusionbench'``: the cosine of the mean angle. They
      are equal for two models.

  Returns:
    The merged task vector, every leaf ``[...]``; apply it with coefficient 1.
    It is zero where ``1 + (T - 1) c`` is within 1e-6 of zero.

  Raises:
    ValueError: if there are fewer than two models, the dialect is unknown, or a
      leaf has no such axis.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[2.0, 0.0], [1.0, 1.0]])}
    >>> [f'{x:.4f}' for x in model_stock(deltas)['w']]
    ['1.2426', '0.4142']

  Reference:
    Jang et al., "Model Stock: All we need is just a few fine-tuned models",
    2024, arXiv:2403.19522.

  Differs from the paper for T > 2 in that the paper leaves open how angles of
  several pairs are averaged.
  """
  models = _stack.count('model_stock', deltas)
  if models < 2:
    raise ValueError('model_stock: one model has no angle: give two or more')
  floor = _checks.choose('model_stock: dialect', dialect, _FLOOR)
  angles = dialect == 'fusionbench'

  def merge(name: str, x: types.Array) -> types.Array:
    along = tree.Static(axis if axis is not None and x.ndim > 2 else None)
    if along.value is not None:
      _checks.axis('model_stock', along.value, name, x.shape[1:])
    return tree.apply_kernel(
      _model_stock, x, axis=along, floor=floor, angles=angles
    )

  return tree.map_named(merge, deltas)


def _model_stock(
  x: types.Array, *, axis: int | None, floor: Any, angles: bool
) -> types.Array:
  """Scales the mean of one leaf ``[T, ...]`` by the models' mean cosine."""
  models = jnp.unstack(tree.wide(x))
  axes = tuple(range(x.ndim - 1)) if axis is None else (axis,)
  dot = lambda a, b: jnp.sum(tree.inner(a, b), axis=axes, keepdims=True)
  # The derivative of a square root is infinite at 0.
  squares = [dot(a, a) for a in models]
  norms = [
    jnp.where(s == 0, 0, jnp.sqrt(jnp.where(s == 0, 1, s))) for s in squares
  ]
  floor = jnp.asarray(floor).astype(norms[0].dtype)
  cosines = []
  for s, a in enumerate(models):
    for t in range(s + 1, len(models)):
      product = jnp.maximum(norms[s] * norms[t], floor)
      cosine = tree.safe_divide(dot(a, models[t]), product)
      cosines.append(jnp.clip(cosine, -1, 1))
  cosine = jnp.stack(cosines)
  mean = jnp.mean(cosine, axis=0)
  if angles:
    mean = jnp.cos(jnp.mean(jnp.arccos(cosine), axis=0))
  below = 1 + (len(models) - 1) * mean
  singular = jnp.abs(below) < 1e-6
  factor = len(models) * mean / jnp.where(singular, 1, below)
  factor = jnp.where(singular, 0, factor)
  merged = factor.astype(models[0].dtype) * _linear.mean_leaf(tree.wide(x))
  return merged.astype(x.dtype)
