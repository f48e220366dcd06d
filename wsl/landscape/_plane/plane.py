"""The plane through three models."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.landscape import _directions, _interpolate


class Plane(NamedTuple):
  r"""A plane in parameter space, :math:`\theta_0 + x u + y v`.

  Attributes:
    origin: the model at (0, 0).
    first: the direction u, a tree with the float leaves of the model, in
      float32 or wider; None at integer leaves.
    second: the direction v.
  """

  origin: types.Params
  first: types.Tree
  second: types.Tree


def plane(a: types.Params, b: types.Params, c: types.Params) -> Plane:
  r"""Returns the plane through three models, in an orthonormal basis.

  .. math:: u = \frac{\theta_b - \theta_a}{\|\theta_b - \theta_a\|}, \qquad
    v = \frac{w}{\|w\|}, \quad
    w = (\theta_c - \theta_a) - \langle \theta_c - \theta_a, u \rangle u

  so that distances on a figure are distances of parameters.
  ``plane_coordinates`` places models on it.

  Args:
    a: the model at (0, 0), leaves ``[...]``.
    b: a model on the positive x axis, of the same names, shapes and dtypes.
    c: a model with a positive y.

  Returns:
    A ``Plane``.

  Raises:
    ValueError: naming the leaf in which the models differ, or if they are on
      one line (not checked in a trace).

  Example:
    >>> import jax.numpy as jnp
    >>> corners = jnp.asarray([[1.0, 0.0], [4.0, 0.0], [2.0, 5.0]])
    >>> a, b, c = ({'x': x} for x in corners)
    >>> found = plane(a, b, c)
    >>> [x.tolist() for x in plane_coordinates(found, c)]
    [1.0, 5.0]

  Reference:
    Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of
    DNNs", 2018, arXiv:1802.10026.
  """
  b = _interpolate.check_alike(a, b, name='plane')
  c = _interpolate.check_alike(a, c, name='plane')
  tree.check_weights('plane', {'a': a, 'b': b, 'c': c})
  tree.check_not_narrowed('plane', a)
  tree.check_real('plane', a, 'only planes of real parameters are defined')
  a, b, c = tree.read((a, b, c))
  start = _directions.wide_floats(a)
  to_b, to_c = (
    jax.tree.map(jnp.subtract, _directions.wide_floats(end), start)
    for end in (b, c)
  )
  first = _directions.unit(to_b)
  along = _directions.inner(to_c, first)
  rest = jax.tree.map(jnp.subtract, to_c, _directions.scaled(first, along))
  # Twice, as the first projection leaves a rounding error along u.
  again = _directions.inner(rest, first)
  rest = jax.tree.map(jnp.subtract, rest, _directions.scaled(first, again))
  _check_spanned(to_b, to_c, rest)
  return Plane(a, first, _directions.unit(rest))


def _check_spanned(
  to_b: types.Tree, to_c: types.Tree, rest: types.Tree
) -> None:
  """Checks that three models are not on one line, unless they are traced."""
  squares = [_directions.inner(x, x) for x in (to_b, to_c, rest)]
  if any(isinstance(x, jax.core.Tracer) for x in squares):
    return
  eps = float(jnp.finfo(squares[0].dtype).eps)
  if not squares[0] > 0 or not squares[2] > (16 * eps) ** 2 * squares[1]:
    raise ValueError(
      'plane: the three models are on one line, so they span no plane: give a '
      'third model that is not between the others'
    )


def plane_point(plane: Plane, x: types.Scalar, y: types.Scalar) -> types.Params:
  r"""Returns the model at a point of a plane, :math:`\theta_0 + x u + y v`.

  Args:
    plane: from ``plane`` or ``random_plane``.
    x: a number, which may be traced.
    y: a number, which may be traced.

  Returns:
    A tree like ``plane.origin``, computed in float32 or wider and returned in
    its dtypes; integer leaves are those of the origin.

  Raises:
    ValueError: if x or y is an array, or NaN.

  Example:
    >>> import jax.numpy as jnp
    >>> one = {'x': jnp.ones(2)}
    >>> plane_point(Plane(one, one, one), 2.0, 3.0)['x'].tolist()
    [6.0, 6.0]
  """
  tree.check_scalars('plane_point', x=x, y=y)

  def move(origin: Any, u: types.Array | None, v: types.Array) -> Any:
    if u is None:
      return origin
    origin = jnp.asarray(origin)
    at = [jnp.asarray(z).astype(u.dtype) for z in (x, y)]
    return (tree.wide(origin) + at[0] * u + at[1] * v).astype(origin.dtype)

  return jax.tree.map(move, plane.origin, plane.first, plane.second)


def plane_coordinates(
  plane: Plane, params: types.Params
) -> tuple[types.Array, types.Array]:
  r"""Returns the point of a plane that is nearest to a model.

  .. math:: \arg\min_{x, y} \; \| \theta - (\theta_0 + x u + y v) \|

  Args:
    plane: from ``plane`` or ``random_plane``.
    params: a model of the names, shapes and dtypes of ``plane.origin``, such as
      a step of a training.

  Returns:
    x and y, ``[]`` each, in float32 or wider.

  Raises:
    ValueError: naming the leaf in which the models differ.

  Example:
    >>> import jax.numpy as jnp
    >>> axes = ({'x': jnp.asarray(x)} for x in ([0., 0.], [2., 0.], [1., 1.]))
    >>> found = plane_coordinates(Plane(*axes), {'x': jnp.asarray([5., 3.])})
    >>> [x.tolist() for x in found]
    [1.0, 3.0]
  """
  params = _interpolate.check_alike(
    plane.origin, params, name='plane_coordinates'
  )
  start, end = map(_directions.wide_floats, (plane.origin, tree.read(params)))
  away = jax.tree.map(jnp.subtract, end, start)
  u, v = plane.first, plane.second
  uu, uv, vv = (_directions.inner(*pair) for pair in ((u, u), (u, v), (v, v)))
  ux, vx = _directions.inner(u, away), _directions.inner(v, away)
  # The normal equations of two unknowns.
  determinant = uu * vv - uv * uv
  return (
    (vv * ux - uv * vx) / determinant, (uu * vx - uv * ux) / determinant
  )  # fmt: skip
