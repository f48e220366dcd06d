"""Spherical interpolation of task vectors, or along one axis."""

from typing import Any

import jax.numpy as jnp

from wsl import deltas, tree, types
from wsl.merge import _checks
from wsl.merge._spherical import slerp


@deltas.on_models
def nuslerp(
  a: types.Params,
  b: types.Params,
  *,
  t: types.Numbers,
  base: types.Params | None = None,
  axis: int | None = None,
) -> types.Params:
  r"""Interpolates two models, or their task vectors, along great circles.

  .. math:: \theta_0 + \frac{\sin((1-t)\omega)}{\sin\omega} (a - \theta_0) +
    \frac{\sin(t\omega)}{\sin\omega} (b - \theta_0), \qquad
    \omega = \angle(a - \theta_0, b - \theta_0)

  in each leaf, with :math:`\theta_0 = 0` if there is no base. It is ``slerp``
  with an origin, and with an angle for each row or column if asked.

  Args:
    a: the model at t = 0, leaves ``[...]``.
    b: the model at t = 1, of the same structure and shapes.
    t: the position on the arc, a number that may be traced, or one for each
      leaf as in ``slerp``. mergekit takes the weights of both models:
      ``t = w_b / (w_a + w_b)``.
    base: the origin; None is zero.
    axis: the axis along which vectors lie: each row or column has an angle of
      its own. None flattens the leaf. Leaves of fewer axes are flattened.
      mergekit's ``nuslerp_flatten: false`` is -1, with ``nuslerp_row_wise`` 0.

  Returns:
    A model, leaves ``[...]`` in the dtype of ``a``; integer leaves are copied.

  Raises:
    ValueError: if the models differ in structure, shape, dtype or integers, or
      one holds NaN or inf, naming the leaf; if ``t`` is an array; or if a leaf
      has no such axis.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'w': jnp.asarray([2.0, 1.0])}, {'w': jnp.asarray([1.0, 2.0])}
    >>> base = {'w': jnp.asarray([1.0, 1.0])}
    >>> [f'{x:.4f}' for x in nuslerp(a, b, t=0.5, base=base)['w']]
    ['1.7071', '1.7071']

  Reference:
    mergekit 0.1.5, method ``nuslerp``.

  Differs from mergekit where sin(omega) is within rounding error: it is linear
  there, as in ``slerp``.
  """
  models = {'a': a, 'b': b} | ({} if base is None else {'base': base})
  a, b, *origin = deltas.check('nuslerp', models)
  parts = tree.scalars('nuslerp', 't', t, a)

  def interpolate(name: str, x: Any, part: Any, *rest: Any) -> Any:
    if not tree.is_float(x):
      return x
    along = tree.Static(axis if axis is not None and x.ndim > 1 else None)
    if along.value is not None:
      _checks.axis('nuslerp', along.value, name, x.shape)
    return tree.apply_kernel(_nuslerp, x, *rest, t=part, axis=along)

  return tree.map_named(interpolate, a, parts, b, *origin)


def _nuslerp(
  a: types.Array,
  b: types.Array,
  *base: types.Array,
  t: Any,
  axis: int | None,
) -> types.Array:
  """Interpolates one leaf, flattened or along an axis."""
  origin = tree.wide(base[0]) if base else jnp.zeros_like(tree.wide(a))
  x, y = tree.wide(a) - origin, tree.wide(b) - origin
  axes = tuple(range(x.ndim)) if axis is None else (axis,)
  dot = lambda x, y: jnp.sum(tree.inner(x, y), axis=axes, keepdims=True)
  products = jnp.stack([dot(x, x), dot(y, y), dot(x, y)])
  first, second = slerp.arc_weights(products, t, 1.0)
  moved = first.astype(x.dtype) * x + second.astype(x.dtype) * y
  return (origin + moved).astype(a.dtype)
