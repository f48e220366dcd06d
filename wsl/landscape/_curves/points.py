"""Points on curves between two models: Bezier curves and polygons."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.landscape import _checks, _interpolate


class Curve(NamedTuple):
  """A curve between two models.

  Attributes:
    a: the model at t = 0.
    bends: the control points between the ends, a tree like ``a`` with leaves
      ``[K, ...]``, float32 or wider; None at integer leaves.
    b: the model at t = 1.
  """

  a: types.Params
  bends: types.Tree
  b: types.Params


def curve(a: types.Params, b: types.Params, *, bends: int = 3) -> Curve:
  r"""Returns the straight line as a curve with bends, to be trained.

  .. math:: \theta_k = (1 - \tfrac{k}{K+1}) \theta_a + \tfrac{k}{K+1} \theta_b

  Args:
    a: the model at t = 0, leaves ``[...]``.
    b: the model at t = 1, of the same names, shapes and dtypes.
    bends: number of control points K between the ends, ``>= 1``.

  Returns:
    A ``Curve``.

  Raises:
    ValueError: naming the leaf in which the models differ, or if ``bends`` is
      below 1.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'x': jnp.asarray(0.0)}, {'x': jnp.asarray(4.0)}
    >>> curve(a, b, bends=3).bends['x'].tolist()
    [1.0, 2.0, 3.0]
  """
  _checks.count('curve', 'bends', bends)
  b = _interpolate.check_alike(a, b, name='curve')
  tree.check_weights('curve', {'a': a, 'b': b})
  tree.check_not_narrowed('curve', a)
  a, b = tree.read((a, b))

  def between(x: Any, y: Any) -> types.Array | None:
    if not tree.is_float(jnp.asarray(x)):
      return None
    x, y = (tree.wide(jnp.asarray(end)) for end in (x, y))
    t = jnp.arange(1, bends + 1).astype(x.real.dtype) / (bends + 1)
    t = t.reshape(-1, *[1] * x.ndim)
    return (1 - t) * x[None] + t * y[None]

  return Curve(a, jax.tree.map(between, a, b), b)


def bezier(curve: Curve, t: types.Scalar) -> types.Params:
  r"""Returns a point of the Bezier curve whose control points are given.

  .. math:: \theta(t) = \sum_{k=0}^{K+1} \binom{K+1}{k}
    t^k (1 - t)^{K+1-k} \, \theta_k

  with :math:`\theta_0 = \theta_a` and :math:`\theta_{K+1} = \theta_b`. It
  passes through the ends, not through the bends.

  Args:
    curve: from ``curve``, or with trained bends.
    t: a number in 0 .. 1, which may be traced.

  Returns:
    A tree like ``curve.a``, computed in float32 or wider and returned in its
    dtypes; integer leaves are those of a.

  Raises:
    ValueError: if t is an array, or a known number outside of 0 .. 1.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'x': jnp.asarray(0.0)}, {'x': jnp.asarray(4.0)}
    >>> bezier(Curve(a, {'x': jnp.asarray([4.0])}, b), 0.5)['x'].item()
    3.0

  Reference:
    Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of
    DNNs", 2018, arXiv:1802.10026.
  """
  order = _bends(curve) + 1
  _check_position('bezier', t)
  t = jnp.asarray(t)
  t = t.astype(tree.wide_dtype(t))
  weights = [
    math.comb(order, k) * t**k * (1 - t) ** (order - k)
    for k in range(order + 1)
  ]
  return _weighted(curve, jnp.stack(weights))


def polygon(curve: Curve, t: types.Scalar) -> types.Params:
  r"""Returns a point of the polygonal chain through the ends and the bends.

  .. math:: \theta(t) = (1 - s) \, \theta_k + s \, \theta_{k+1}, \qquad
    k + s = (K + 1) \, t

  Args:
    curve: as in ``bezier``.
    t: a number in 0 .. 1, which may be traced.

  Returns:
    As ``bezier``.

  Raises:
    ValueError: as ``bezier``.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'x': jnp.asarray(0.0)}, {'x': jnp.asarray(4.0)}
    >>> polygon(Curve(a, {'x': jnp.asarray([8.0])}, b), 0.75)['x'].item()
    6.0

  Reference:
    Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of
    DNNs", 2018, arXiv:1802.10026.
  """
  order = _bends(curve) + 1
  _check_position('polygon', t)
  t = jnp.asarray(t)
  place = t.astype(tree.wide_dtype(t)) * order
  # The hat functions of the corners: 1 at their own place, 0 at the others.
  distance = jnp.abs(place - jnp.arange(order + 1).astype(place.dtype))
  return _weighted(curve, jnp.maximum(1 - distance, 0))


def _check_position(function: str, t: types.Scalar) -> None:
  """Checks that t is a number; a known one is in 0 .. 1."""
  tree.check_scalars(function, t=t)
  if not isinstance(t, jax.core.Tracer) and not 0 <= t <= 1:
    raise ValueError(f'{function}: t={t}, expected a number in 0 .. 1')


def _bends(curve: Curve) -> int:
  """Returns the number of bends K."""
  leaves = jax.tree.leaves(curve.bends)
  if not leaves:
    raise ValueError('curve: no leaf of floats: there is nothing to bend')
  return int(leaves[0].shape[0])


def _weighted(curve: Curve, weights: types.Array) -> types.Params:
  """Sums ends and bends with weights ``[K + 2]``."""

  def combine(x: Any, bends: types.Array | None, y: Any) -> Any:
    if bends is None:
      return x
    x = jnp.asarray(x)
    w = weights.astype(bends.dtype)
    inside = jnp.tensordot(w[1:-1], bends, 1, precision='highest')
    start, end = tree.wide(x), tree.wide(jnp.asarray(y))
    return (w[0] * start + inside + w[-1] * end).astype(x.dtype)

  # An integer leaf has no bends: None.
  return jax.tree.map(combine, curve.a, curve.bends, curve.b)
