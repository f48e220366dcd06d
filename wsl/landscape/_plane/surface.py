"""Values on a grid of a plane."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.landscape import _checks
from wsl.landscape._plane import plane as plane_lib


def surface(
  metric_fn: Callable[[types.Params], types.Tree],
  plane: plane_lib.Plane,
  *,
  x: types.ArrayLike,
  y: types.ArrayLike,
  chunk: int = 1,
  edit: Callable[[types.Params], types.Params] | None = None,
) -> types.Tree:
  r"""Evaluates a metric on a grid of a plane.

  .. math:: m_{ij} = m(\theta_0 + x_i u + y_j v)

  All is traced: for a figure, jit a function of the plane that calls this, and
  it compiles once for all models.

  Args:
    metric_fn: a function of the parameters; it returns a number, an array or
      any pytree of them.
    plane: from ``plane`` or ``random_plane``.
    x: ``[M]``, places along the first direction.
    y: ``[N]``, places along the second.
    chunk: how many models are evaluated side by side by ``vmap``; memory grows
      with it.
    edit: a function of the parameters, applied before the metric is evaluated,
      such as a correction of their running moments.

  Returns:
    A pytree of the metric's structure, leaves ``[M, N, ...]``, float32 or
    wider.

  Raises:
    ValueError: if x or y is no vector, or ``chunk`` is below 1.

  Example:
    >>> import jax.numpy as jnp
    >>> axes = ({'x': jnp.asarray(x)} for x in ([0., 0.], [1., 0.], [0., 1.]))
    >>> bowl = lambda p: jnp.sum(p['x'] ** 2)
    >>> surface(bowl, plane_lib.Plane(*axes), x=[0., 1.], y=[0., 2.]).tolist()
    [[0.0, 4.0], [1.0, 5.0]]

  Reference:
    Li et al., "Visualizing the Loss Landscape of Neural Nets", 2017,
    arXiv:1712.09913.
  """
  _checks.count('surface', 'chunk', chunk)
  places = {'x': jnp.asarray(x), 'y': jnp.asarray(y)}
  for name, value in places.items():
    if value.ndim != 1 or not value.size:
      raise ValueError(
        f'surface: {name} has shape {value.shape}, expected places [N] on the '
        'axis'
      )
  tree.check_not_narrowed('surface', plane.origin)
  shape = (places['x'].size, places['y'].size)
  grid = [z.reshape(-1) for z in jnp.meshgrid(*places.values(), indexing='ij')]

  def metric_at(at: list[types.Array]) -> types.Tree:
    params = plane_lib.plane_point(plane, *at)
    if edit is not None:
      params = edit(params)
    found = metric_fn(params)
    return jax.tree.map(lambda z: tree.widen(jnp.asarray(z))[0], found)

  values = jax.lax.map(metric_at, grid, batch_size=min(chunk, math.prod(shape)))
  return jax.tree.map(lambda z: z.reshape(*shape, *z.shape[1:]), values)
