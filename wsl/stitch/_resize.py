"""Resizes features to another grid: images and tokens of other resolutions."""

import math

import jax
import jax.numpy as jnp

from wsl import types


def resize(x: types.Array, grid: tuple[int, ...]) -> types.Array:
  """Resizes the middle axes of features bilinearly.

  Args:
    x: ``[B, *places, d]``. ``places`` is (h, w) for a convolutional network,
      (S,) for S tokens, or empty. Tokens are interpreted as a square grid with
      sqrt(S) rows if their number changes.
    grid: the new ``places``: (h, w), (S,), or () for the mean over all.

  Returns:
    ``[B, *grid, d]``; tokens are in row-major order.

  Raises:
    ValueError: if x has no middle axes but the grid has, or if tokens do not
      form a square.

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
  """Returns the numbers of rows and columns of a grid."""
  if len(places) == 2:
    return places[0], places[1]
  side = math.isqrt(places[0])
  if len(places) != 1 or side * side != places[0]:
    raise ValueError(
      f'places {list(places)} are neither (h, w) nor a square number of '
      'tokens: they cannot be resized'
    )
  return side, side
