"""Spherical linear interpolation between two models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas, tree, types
from wsl.merge import _checks, _stack

_ENTRIES = tree.Entries(lead=0, neutral=0.0)


@deltas.on_models
def slerp(
  a: types.Params,
  b: types.Params,
  *,
  t: types.Numbers,
  scope: str = 'leaf',
  lerp_above: float = 1.0,
  matrices: tree.Matrices | None = None,
) -> types.Params:
  r"""Interpolates along the great circle between two models.

  .. math:: \frac{\sin((1-t)\theta)}{\sin\theta} a +
    \frac{\sin(t\theta)}{\sin\theta} b, \qquad
    \theta = \angle(a, b)

  The vectors are not normalised, so norms are interpolated as well. Complex
  leaves are real vectors of twice the length: :math:`\cos\theta` is the real
  part of the inner product.

  Args:
    a: the model at t = 0, leaves ``[...]``.
    b: the model at t = 1, of the same structure and shapes.
    t: the position on the arc, a number that may be traced; or one for each
      leaf, by regular expressions or a prefix tree as ``coef`` of
      ``deltas.apply``: ``{'attn': 0.3, 'mlp': 0.7, '.*': 0.5}``.
    scope: ``'leaf'`` computes the angle in each leaf (mergekit), ``'global'``
      over the whole model.
    lerp_above: where ``|cos(theta)|`` exceeds it, interpolation is linear;
      mergekit's value is 0.9995. It is linear in any case where ``sin(theta)``
      is within rounding error (parallel, opposite or zero vectors).
    matrices: in scope ``'leaf'``, views as for ``tree.views``: each matrix or
      vector of a stack (a scanned layer, an expert, a feature group) has an
      angle of its own. Leaves without a rule have one angle. For scanned layers
      take ``tree.scanned('^layers/')`` or ``stats.matrix_views``.

  Returns:
    A model, leaves ``[...]`` in the dtype of ``a``; integer leaves are copied
    from ``a``.

  Raises:
    ValueError: if the models differ in structure, shape, dtype or integers, or
      one holds NaN or inf, naming the leaf; if ``scope`` is unknown; if ``t``
      or ``lerp_above`` is an array; or if ``matrices`` do not fit, as in
      ``tree.views``, or are given in scope ``'global'``.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'w': jnp.asarray([1.0, 0.0])}, {'w': jnp.asarray([0.0, 1.0])}
    >>> [f'{x:.4f}' for x in slerp(a, b, t=0.5)['w']]
    ['0.7071', '0.7071']

  Reference:
    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.

  Differs from mergekit 0.1.5, which interpolates linearly where the cosine is
  above 0.9995: give ``lerp_above=0.9995``.
  """
  a, b = deltas.check('slerp', {'a': a, 'b': b})
  remedy = 'one for all leaves, or jax.vmap over several'
  tree.check_scalars('slerp', remedy=remedy, lerp_above=lerp_above)
  parts = tree.scalars('slerp', 't', t, a)
  views = _views(a, matrices)
  if matrices is not None and scope == 'global':
    raise ValueError(
      "slerp: matrices are given, but scope='global' has one angle for the "
      "model: take scope='leaf'"
    )

  def leaf() -> types.Params:
    return _map_floats(_slerp_leaf, a, b, parts, views, lerp_above=lerp_above)

  def everywhere() -> types.Params:
    hyper = {'products': _total_products(a, b), 'lerp_above': lerp_above}
    return _map_floats(_slerp, a, b, parts, views, **hyper)

  scopes = {'leaf': leaf, 'global': everywhere}
  return _checks.choose('slerp: scope', scope, scopes)()


def _views(a: types.Params, matrices: tree.Matrices | None) -> types.Tree:
  """Returns the view of each float leaf that is a stack, None elsewhere."""
  floats = jax.tree.map(lambda x: x if tree.is_float(x) else None, a)
  if matrices is None:
    return jax.tree.map(lambda _: None, a)
  try:
    views = tree.views(floats, matrices, otherwise='mean')
  except ValueError as error:
    raise ValueError(f'slerp: {error}') from None

  def stacked(x: types.Array, view: tree.Matrix | None) -> Any:
    return view if view and view.sizes(x.shape)[0] > 1 else None

  return jax.tree.map(stacked, a, views)


def _map_floats(
  kernel: Any, a: Any, b: Any, parts: Any, views: Any, **hyper: Any
) -> types.Params:
  """Applies a kernel to pairs of float leaves; integers are those of ``a``."""

  def interpolate(x: Any, y: Any, t: Any, view: tree.Matrix | None) -> Any:
    if not tree.is_float(x):
      return x
    large = tree.in_files(x, above=_stack.LARGE)
    if view is None and kernel is _slerp_leaf and large:
      # In two passes of chunks, and not as a whole.
      products = _total_products(x, y)
      return tree.apply_kernel(_slerp, x, y, t=t, products=products, **hyper)
    if view is None:
      return tree.apply_kernel(kernel, x, y, t=t, **hyper)
    static = {'method': tree.Static(kernel), 'view': tree.Static(view)}
    return tree.apply_kernel(_in_view, x, y, t=t, **static, **hyper)

  return _stack.fuse(
    (a, b), lambda both: jax.tree.map(interpolate, *both, parts, views)
  )


def _in_view(
  a: types.Array,
  b: types.Array,
  *,
  method: Any,
  view: tree.Matrix,
  **hyper: Any,
) -> types.Array:
  """Applies a kernel to each matrix of a view."""
  each = jax.vmap(lambda x, y: method(x, y, **hyper))
  return view.join(each(view.split(a), view.split(b)), a.shape)


def _total_products(a: types.Params, b: types.Params) -> Any:
  """Returns the inner products of two trees ``[a.a, b.b, a.b]``."""
  return tree.statistic(
    lambda: tree.total(_products, a, b, entries=_ENTRIES),
    (a, b),
    shape=(3,),
    dtype=np.float64,
  )


def _products(a: types.Array, b: types.Array) -> types.Array:
  """Returns ``[a.a, b.b, a.b]``; zeros for an integer leaf."""
  if not tree.is_float(a):
    return jnp.zeros(3, jnp.float32)
  a, b = tree.wide(a), tree.wide(b)
  products = [tree.square(a), tree.square(b), tree.inner(a, b)]
  return jnp.concatenate([tree.sum_entries(x[None]) for x in products])


def _slerp_leaf(
  a: types.Array, b: types.Array, *, t: Any, lerp_above: Any
) -> types.Array:
  """Interpolates one leaf by its own angle."""
  return _slerp(a, b, products=_products(a, b), t=t, lerp_above=lerp_above)


def _slerp(
  a: types.Array,
  b: types.Array,
  *,
  products: types.Array,
  t: Any,
  lerp_above: Any,
) -> types.Array:
  """Interpolates one leaf by the angle of given inner products, ``[3]``."""
  x, y = tree.wide(a), tree.wide(b)
  weights = arc_weights(products.astype(x.real.dtype), t, lerp_above)
  first, second = (w.astype(x.dtype) for w in weights)
  return (first * x + second * y).astype(a.dtype)


def arc_weights(
  products: types.Array, t: Any, lerp_above: Any
) -> tuple[types.Array, types.Array]:
  """Returns the coefficients of a and b, linear ones where there is no arc.

  Args:
    products: ``[3, ...]``: a.a, b.b and a.b of one or more pairs of vectors.
    t: the position on the arc.
    lerp_above: the magnitude of the cosine above which they are linear.
  """
  t = jnp.asarray(t).astype(products.dtype)
  limit = jnp.asarray(lerp_above).astype(products.dtype)
  aa, bb, ab = products
  # The derivative of a square root is infinite at 0: where the branch is not
  # taken its argument is replaced by 1, so that gradients stay finite.
  zero = (aa == 0) | (bb == 0)
  root = lambda x, at: jnp.sqrt(jnp.where(at, 1, x))
  cosine = jnp.clip(ab / root(aa, zero) / root(bb, zero), -1, 1)
  # sin^2 = (1 - cos)(1 + cos) has no cancellation near cos = 1 beyond that of
  # cos itself, which has an error of a few eps; below 16 eps sin is noise.
  # arctan2(sin, cos) is accurate at all angles, arccos is not near 0 and pi.
  square = (1 - cosine) * (1 + cosine)
  lost = square < 16 * jnp.finfo(square.dtype).eps
  straight = (jnp.abs(cosine) > limit) | lost | zero
  angle = jnp.arctan2(root(square, straight), jnp.where(straight, 1, cosine))
  arc = lambda part: jnp.sin(part * angle) / jnp.sin(angle)
  first = jnp.where(straight, 1 - t, arc(1 - t))
  return first, jnp.where(straight, t, arc(t))
