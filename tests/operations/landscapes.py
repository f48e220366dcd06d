"""Operations of ``landscape`` on curves, planes and Hessians."""

from typing import Any

import jax
import jax.numpy as jnp

from tests.operations import inputs
from wsl import landscape, tree


def parts(dtype: Any) -> list[inputs.Table]:
  return [_curved(dtype), _curvature(dtype)]


def _curved(dtype: Any) -> inputs.Table:
  """Returns curves, planes and phases."""
  a, b, c = (inputs.params(dtype, i) for i in (1, 2, 3))
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  # Arguments without operations, which would be compiled.
  wide = jnp.dtype(tree.wide_dtype(x))
  steps = {n: inputs.normal(wide, 2, *v.shape, seed=4) for n, v in a.items()}
  line = landscape.Curve(a, steps, b)
  u, v = (
    {n: inputs.normal(wide, *z.shape, seed=s) for n, z in a.items()}
    for s in (5, 6)
  )
  flat = landscape.Plane(a, u, v)
  square = lambda p, x, key=None: jnp.mean(jnp.square(inputs.mlp(p, x)))
  places = inputs.normal(wide, 3)
  return {
    'landscape.curve': (lambda a, b: landscape.curve(a, b, bends=2), (a, b)),
    'landscape.bezier': (landscape.bezier, (line, 0.3)),
    'landscape.polygon': (landscape.polygon, (line, 0.3)),
    'landscape.curve_loss': (
      lambda a, b, bends, x: jax.grad(landscape.curve_loss(square, a, b))(
        bends, x, inputs.KEY
      ),
      (a, b, line.bends, x),
    ),
    'landscape.curve_path': (
      lambda line, x: landscape.curve_path(
        lambda p: square(p, x), line, points=3
      ).values,
      (line, x),
    ),
    'landscape.connectivity': (landscape.connectivity, (x,)),
    'landscape.plane': (landscape.plane, (a, b, c)),
    'landscape.plane_point': (landscape.plane_point, (flat, 0.1, 0.2)),
    'landscape.plane_coordinates': (landscape.plane_coordinates, (flat, c)),
    'landscape.random_plane': (
      lambda a: landscape.random_plane(a, key=inputs.KEY), (a,)
    ),
    'landscape.surface': (
      lambda flat, x: landscape.surface(
        lambda p: square(p, x), flat, x=places, y=places, chunk=4
      ),
      (flat, x),
    ),
    'landscape.phases': (
      lambda x: landscape.phases(x, x, x, low_loss=1, barrier=0, similar=1),
      (places,),
    ),
  }  # fmt: skip


def _curvature(dtype: Any) -> inputs.Table:
  """Returns functions of a Hessian; batches are of two sizes."""
  params = inputs.params(dtype, 1)
  x = inputs.normal(dtype, inputs.N, 4, seed=3)
  # Parameters are widened: the inputs of the user's product are too.
  wide = jnp.dtype(tree.wide_dtype(x))
  batches = [inputs.normal(wide, size, 4) for size in (5, 5, 2)]
  square = lambda p, x: jnp.mean(jnp.square(inputs.mlp(p, x)))
  return {
    f'landscape.{fn.__name__}': (
      lambda p, b, fn=fn, more=more: fn(square, p, b, key=inputs.KEY, **more),
      (params, batches),
    )
    for fn, more in (
      (landscape.hessian_top, {'steps': 3, 'count': 2}),
      (landscape.hessian_trace, {'probes': 2, 'deflate': 2}),
      (landscape.hessian_density, {'steps': 3, 'probes': 2}),
    )
  }
