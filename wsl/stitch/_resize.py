"""Features on another grid: images and tokens of other resolutions."""

import math

import jax
import jax.numpy as jnp

from wsl import types


def resize(x: types.Array, grid: tuple[int, ...]) -> types.Array:
  """Resizes features, bilinearly, to another grid of places.

  Args:
    x: ``[B, *places, d]``, where the places are ``h, w`` of a convolutional
      network, ``S`` tokens, taken for a square of sqrt(S) rows if their number
      must change, or none.
    grid: the places wanted: ``(h, w)``, ``(S,)`` or ``()``, the mean over all.

  Returns:
    ``[B, *grid, d]``; tokens are the places row by row.

  Raises:
    ValueError: if x has no places but the grid does, or tokens are no square.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> resize(x, (4,)).ravel().tolist(), resize(x, ()).ravel().tolist()
    ([0.0, 1.0, 2.0, 3.0], [1.5])
  """
  places = x.shape[1:-1]
  if places == grid:
    return x
  if not grid:
    return jnp.mean(x, tuple(range(1, x.ndim - 1)))
  if not places:
    raise ValueError(
      f'features {list(x.shape)} have no places to resize to {list(grid)}: '
      'stitch at a position before they are pooled'
    )
  if math.prod(places) == math.prod(grid) and len(places) != len(grid):
    return x.reshape(x.shape[0], *grid, x.shape[-1])
  shape = (x.shape[0], *_plane(grid), x.shape[-1])
  h = jax.image.resize(
    x.reshape(x.shape[0], *_plane(places), x.shape[-1]), shape, 'bilinear'
  )
  return h.reshape(x.shape[0], *grid, x.shape[-1])


def _plane(places: tuple[int, ...]) -> tuple[int, int]:
  """Returns rows and columns of places."""
  if len(places) == 2:
    return places[0], places[1]
  side = math.isqrt(places[0])
  if len(places) != 1 or side * side != places[0]:
    raise ValueError(
      f'places {list(places)} are neither (h, w) nor a square number of '
      'tokens: they cannot be resized'
    )
  return side, side
