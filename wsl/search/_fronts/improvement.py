"""The expected growth of a hypervolume, exact for independent predictions."""

from typing import NamedTuple

import numpy as np


class Cells(NamedTuple):
  """The space below a reference point, cut at the coordinates of a front.

  Attributes:
    edges: of the intervals of each of M losses, rising from minus infinity to
      the reference, ``[P + 2]`` each.
    free: 1 for each cell that no point of the front dominates, else 0;
      ``[P + 1] * M``.
  """

  edges: list[np.ndarray]
  free: np.ndarray


def cells(front: np.ndarray, reference: np.ndarray) -> Cells:
  """Cuts the space below a reference ``[M]`` by the points of ``[P, M]``."""
  front = front[(front < reference).all(1)]
  edges = [
    np.concatenate([[-np.inf], np.sort(x), [r]])
    for x, r in zip(front.T, reference)
  ]
  free = np.ones([len(x) - 1 for x in edges])
  for point in front:
    # A point dominates the cells whose lower corner is above it. The edges are
    # sorted: these are the last cells of each axis.
    first = [np.searchsorted(x[:-1], y) for x, y in zip(edges, point)]
    free[tuple(slice(i, None) for i in first)] = 0
  return Cells(edges, free)


def expected_improvement(
  mean: np.ndarray, deviation: np.ndarray, space: Cells
) -> np.ndarray:
  r"""Returns the expected growth of the hypervolume by one more point.

  .. math:: \operatorname{E} \operatorname{HVI}(y) = \int_{z \le r,\; z
    \text{ not dominated}} \prod_m \Phi\Big(\frac{z_m - \mu_m}{\sigma_m}\Big) dz

  for independent normal losses y of the new point.

  Args:
    mean: of B predictions of M losses, ``[B, M]``.
    deviation: their standard deviations, ``> 0``, ``[B, M]``.
    space: the cells of a front of P points and a reference.

  Returns:
    The expectations, ``[B]``; time and memory grow as ``(P + 1) ** M``.
  """
  # A loss vector z counts if the new point is below it and no old one is:
  # HVI(y) is the integral of 1[y <= z] over the z <= r that no point of the
  # front dominates, and E 1[y <= z] is a product over independent losses. A
  # cell is dominated as a whole or not at all, so that the integral is a sum
  # over free cells of products of integrals over intervals.
  widths = [
    _below(x[None], mean[:, m, None], deviation[:, m, None])
    for m, x in enumerate(space.edges)
  ]
  # Contract one loss after another; the first product is the largest.
  value = np.tensordot(widths[-1], space.free, axes=(1, space.free.ndim - 1))
  for width in widths[-2::-1]:
    value = np.einsum('b...m,bm->b...', value, width)
  return value


def _below(
  edges: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
  """Integrates the probability to be below z over intervals of z."""
  from scipy import special

  # The antiderivative of Phi(t) is t Phi(t) + phi(t), zero at minus infinity.
  t = (edges[:, 1:] - mean) / deviation
  density = np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
  antiderivative = t * special.ndtr(t) + density
  return deviation * np.diff(antiderivative, axis=1, prepend=0)
