"""Model Stock: a mean that is pulled to the base by the angle of the models."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _linear, _stack

# The pairs of more models are computed in a loop, each of them twice.
_PAIRED = 8
# The least product of norms in mergekit's cosine.
_FLOOR = {'paper': 0.0, 'mergekit': 1e-6, 'fusionbench': 0.0}


@deltas_lib.on_stacks
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

  return _stack.fuse(deltas, lambda tau: tree.map_named(merge, tau))


def _model_stock(
  x: types.Array, *, axis: int | None, floor: Any, angles: bool
) -> types.Array:
  """Scales the mean of one leaf ``[T, ...]`` by the models' mean cosine."""
  models = tree.wide(x)
  along = range(x.ndim - 1) if axis is None else (axis % (x.ndim - 1),)
  axes = tuple(a + 1 for a in along)
  squares, products = _inner_products(models, axes)
  # The derivative of a square root is infinite at 0.
  zero = squares == 0
  norms = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))
  floor = jnp.asarray(floor).astype(norms.dtype)
  one, other = np.triu_indices(len(x), 1)
  lengths = jnp.maximum(norms[one] * norms[other], floor)
  cosine = tree.safe_divide(products, lengths)
  cosine = jnp.clip(cosine, -1, 1)
  mean = jnp.mean(cosine, axis=0)
  if angles:
    mean = jnp.cos(jnp.mean(jnp.arccos(cosine), axis=0))
  below = 1 + (len(x) - 1) * mean
  singular = jnp.abs(below) < 1e-6
  factor = len(x) * mean / jnp.where(singular, 1, below)
  factor = jnp.where(singular, 0, factor)
  merged = factor.astype(models.dtype) * _linear.mean_leaf(models)
  return merged.astype(x.dtype)


def _inner_products(
  x: types.Array, axes: tuple[int, ...]
) -> tuple[types.Array, types.Array]:
  """Returns the inner products of each model with itself, and of all pairs.

  Args:
    x: ``[T, ...]``.
    axes: the axes of the vectors.

  Returns:
    ``[T, ...]`` and ``[T (T - 1) / 2, ...]``, where the axes have length 1.
  """
  dot = lambda a, b: jnp.sum(tree.inner(a, b), axis=axes, keepdims=True)
  if len(x) > _PAIRED:
    products = jax.lax.map(lambda y: dot(x, y[None]), x)
    return dot(x, x), products[np.triu_indices(len(x), 1)]

  def in_turn(x: types.Array) -> tuple[types.Array, types.Array]:
    # A model with all that follow it.
    each = [dot(x[t:], x[t - 1 : t]) for t in range(1, len(x))]
    return dot(x, x), jnp.concatenate(each)

  @jax.custom_jvp
  def at_once(x: types.Array) -> tuple[types.Array, types.Array]:
    # Models s and s + r modulo T, by one reduction for all r <= T / 2.
    models, shifts = len(x), range(len(x) // 2 + 1)
    twice = jnp.concatenate([x, x[: models // 2]])
    terms = [tree.inner(x, twice[r : r + models]) for r in shifts]
    zeros = [np.zeros((), terms[0].dtype)] * len(terms)
    add = lambda xs, ys: [x + y for x, y in zip(xs, ys)]
    sums = jnp.concatenate(jax.lax.reduce(terms, zeros, add, axes))
    one, other = np.triu_indices(models, 1)
    r = other - one
    near = r <= models // 2
    place = np.where(near, r * models + one, (models - r) * models + other)
    sums = jnp.expand_dims(sums, axes)
    return sums[:models], sums[place]

  at_once.defjvp(functools.partial(jax.jvp, in_turn))
  return jax.lax.platform_dependent(x, cpu=in_turn, default=at_once)
