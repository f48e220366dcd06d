"""Spherical linear interpolation between two models."""

from typing import Any

import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _models


def slerp(
  a: types.Params,
  b: types.Params,
  *,
  t: types.Scalar,
  scope: str = 'leaf',
  lerp_above: float = 1.0,
) -> types.Params:
  r"""Interpolates along the great circle between two models.

  .. math:: \frac{\sin((1-t)\theta)}{\sin\theta} a +
    \frac{\sin(t\theta)}{\sin\theta} b, \qquad
    \theta = \angle(a, b)

  The vectors are not normalised, so that norms are interpolated too.

  Args:
    a: the model at t = 0, leaves ``[...]``.
    b: the model at t = 1, of the same structure and shapes.
    t: the place on the arc; may be traced.
    scope: ``'leaf'`` takes the angle in each leaf (mergekit), ``'global'`` over
      the whole model.
    lerp_above: where ``|cos(theta)|`` exceeds it the path is a straight line;
      mergekit's value is 0.9995. It is straight in any case where
      ``sin(theta)`` is lost to rounding (parallel, opposite or zero vectors).

  Returns:
    A model, leaves ``[...]`` in the dtype of ``a``; integer leaves are a's.

  Raises:
    ValueError: if the models differ in shape, naming the leaf, or ``scope`` is
      unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'w': jnp.asarray([1.0, 0.0])}, {'w': jnp.asarray([0.0, 1.0])}
    >>> slerp(a, b, t=0.5)['w'].round(4).tolist()
    [0.7071, 0.7071]

  Reference:
    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
  """
  _check_pair(a, b)
  leaf = lambda: tree.map(_slerp_leaf, a, b, t=t, lerp_above=lerp_above)

  def everywhere() -> types.Params:
    products = jnp.asarray(tree.total(_products, a, b))
    return tree.map(_slerp, a, b, products=products, t=t, lerp_above=lerp_above)

  scopes = {'leaf': leaf, 'global': everywhere}
  return _models.one_of('slerp: scope', scope, scopes)()


def _products(a: types.Array, b: types.Array) -> types.Array:
  """Returns ``[a.a, b.b, a.b]``, to which an integer leaf adds nothing."""
  if not jnp.issubdtype(a.dtype, jnp.floating):
    return jnp.zeros(3, jnp.float32)
  a, b = tree.wide(a).reshape(1, -1), tree.wide(b).reshape(1, -1)
  return jnp.concatenate(
    [tree.sum_entries(a * a), tree.sum_entries(b * b), tree.sum_entries(a * b)]
  )


def _slerp_leaf(
  a: types.Array, b: types.Array, *, t: Any, lerp_above: Any
) -> types.Array:
  return _slerp(a, b, products=_products(a, b), t=t, lerp_above=lerp_above)


def _slerp(
  a: types.Array,
  b: types.Array,
  *,
  products: types.Array,
  t: Any,
  lerp_above: Any,
) -> types.Array:
  if not jnp.issubdtype(a.dtype, jnp.floating):
    return a
  x, y = tree.wide(a), tree.wide(b)
  weights = _weights(products.astype(x.dtype), t, lerp_above)
  return (weights[0] * x + weights[1] * y).astype(a.dtype)


def _weights(
  products: types.Array, t: Any, lerp_above: Any
) -> tuple[types.Array, types.Array]:
  t = jnp.asarray(t).astype(products.dtype)
  limit = jnp.asarray(lerp_above).astype(products.dtype)
  aa, bb, ab = products
  cosine = jnp.clip(_models.divide(ab, jnp.sqrt(aa * bb)), -1, 1)
  sine = jnp.sqrt((1 - cosine) * (1 + cosine))
  straight = (jnp.abs(cosine) > limit) | (sine < 1e-6) | (aa * bb == 0)
  angle = jnp.where(straight, 1, jnp.arctan2(sine, cosine))
  arc = lambda part: jnp.sin(part * angle) / jnp.sin(angle)
  first = jnp.where(straight, 1 - t, arc(1 - t))
  return first, jnp.where(straight, t, arc(t))


def _check_pair(a: types.Params, b: types.Params) -> None:
  found = tree.named(b)
  for name, x in tree.named(a).items():
    shape = tuple(found[name].shape) if name in found else 'nothing'
    if shape != tuple(x.shape):
      raise ValueError(
        f"slerp: leaf '{name}' has shape {tuple(x.shape)} in a and {shape} in b"
      )
