"""Spherical linear interpolation between two models."""

from typing import Any

import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.merge import _stack


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
    ValueError: if the models differ in structure, shape or dtype, or one holds
      NaN or inf, naming the leaf; or if ``scope`` is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'w': jnp.asarray([1.0, 0.0])}, {'w': jnp.asarray([0.0, 1.0])}
    >>> [f'{x:.4f}' for x in slerp(a, b, t=0.5)['w']]
    ['0.7071', '0.7071']

  Reference:
    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
  """
  deltas.check('slerp', {'a': a, 'b': b})
  leaf = lambda: tree.map(_slerp_leaf, a, b, t=t, lerp_above=lerp_above)

  def everywhere() -> types.Params:
    products = jnp.asarray(tree.total(_products, a, b))
    return tree.map(_slerp, a, b, products=products, t=t, lerp_above=lerp_above)

  scopes = {'leaf': leaf, 'global': everywhere}
  return _stack.one_of('slerp: scope', scope, scopes)()


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
  # A square root has no slope at zero: keep zero vectors out of it.
  zero = (aa == 0) | (bb == 0)
  root = lambda x, at: jnp.sqrt(jnp.where(at, 1, x))
  cosine = jnp.clip(ab / root(aa, zero) / root(bb, zero), -1, 1)
  square = (1 - cosine) * (1 + cosine)
  lost = square < 16 * jnp.finfo(square.dtype).eps
  straight = (jnp.abs(cosine) > limit) | lost | zero
  angle = jnp.arctan2(root(square, straight), jnp.where(straight, 1, cosine))
  arc = lambda part: jnp.sin(part * angle) / jnp.sin(angle)
  first = jnp.where(straight, 1 - t, arc(1 - t))
  return first, jnp.where(straight, t, arc(t))
