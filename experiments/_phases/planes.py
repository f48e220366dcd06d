"""The training loss on planes through two seeds and their curve."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._phases import settings, zoo
from experiments._shared import side_by_side
from wsl import landscape, types


def measure(
  setting: settings.Setting,
  params: types.Params,
  bends: types.Tree,
  codes: np.ndarray,
) -> dict[str, Any]:
  """Returns surfaces of the first pair of one cell of each phase.

  A plane goes through both networks and the middle of their curve.

  Args:
    setting: config and data.
    params: of the zoo, ``[W, T, S, ...]``.
    bends: from ``curves.measure``.
    codes: the phase of each cell, ``[W, T]``.

  Returns:
    By phase, ``cell`` (width and rate), ``x`` and ``y`` ``[G]``, ``losses``
    ``[G, G]``, and the places of the networks and of points of the curve,
    ``[N, 2]``, from one end to the other.
  """
  config = setting.config
  first, second = settings.pairs(config)[0]
  run = settings.compiled(setting, _one)
  found = {}
  for code, name in enumerate(landscape.PHASES):
    cells = np.argwhere(codes == code)
    if not len(cells):
      continue
    i, t = cells[len(cells) // 2]
    a, b = (side_by_side.pick(params, i, t, s) for s in (first, second))
    surface = run(a, side_by_side.pick(bends, i, t, 0), b)
    found[name] = {
      'cell': [config.widths[i], config.rates[t]],
      **{key: value.tolist() for key, value in surface.items()},
    }
  return found


def _one(
  setting: settings.Setting, a: types.Params, bends: types.Tree, b: types.Params
) -> dict[str, types.Array]:
  """Returns the surface on the plane of one curve."""
  config = setting.config.plane
  curve = landscape.Curve(a, bends, b)
  plane = landscape.plane(a, b, landscape.bezier(curve, 0.5))
  batch = jax.tree.map(lambda z: z[: config.examples], setting.train)

  def place(t: types.Array) -> types.Array:
    point = landscape.bezier(curve, t)
    return jnp.stack(landscape.plane_coordinates(plane, point))

  share = jnp.linspace(0, 1, config.grid)
  places = jax.lax.map(place, share)
  low, high = places.min(0), places.max(0)
  margin = 0.25 * (high - low).max()
  share = share.astype(low.dtype)[:, None]
  at = (low - margin)[None] * (1 - share) + (high + margin)[None] * share
  losses = landscape.surface(
    lambda p: zoo.cross_entropy(setting, p, batch),
    plane, x=at[:, 0], y=at[:, 1], chunk=config.grid,
  )  # fmt: skip
  return {'x': at[:, 0], 'y': at[:, 1], 'losses': losses, 'places': places}
