"""The expected growth of a hypervolume, exact for independent predictions."""

import numpy as np


def expected_improvement(
  mean: np.ndarray,
  deviation: np.ndarray,
  *,
  front: np.ndarray,
  reference: np.ndarray,
) -> np.ndarray:
  r"""Returns the expected growth of the hypervolume by one more point.

  .. math:: \operatorname{E} \operatorname{HVI}(y) = \int_{z \le r,\; z
    \text{ not dominated}} \prod_m \Phi\Big(\frac{z_m - \mu_m}{\sigma_m}\Big) dz

  for independent normal losses y of the new point.

  Args:
    mean: of B predictions of M losses, ``[B, M]``.
    deviation: their standard deviations, ``> 0``, ``[B, M]``.
    front: losses of P points, ``[P, M]``.
    reference: r, ``[M]``.

  Returns:
    The expectations, ``[B]``; time and memory grow as ``(P + 1) ** M``.
  """
  front = front[(front < reference).all(1)]
  # A loss vector z counts if the new point is below it and no old one is:
  # HVI(y) is the integral of 1[y <= z] over the z <= r that no point of the
  # front dominates, and E 1[y <= z] is a product over independent losses. The
  # coordinates of the front cut the space into cells, each of which is
  # dominated as a whole or not at all, so that the integral is a sum over cells
  # of products of integrals over intervals.
  edges = [
    np.concatenate([[-np.inf], np.sort(x), [r]])
    for x, r in zip(front.T, reference)
  ]
  free = np.ones([len(x) - 1 for x in edges])
  for point in front:
    above = [x[:-1] >= value for x, value in zip(edges, point)]
    free[np.ix_(*above)] = 0
  widths = [
    _below(x[None], mean[:, m, None], deviation[:, m, None])
    for m, x in enumerate(edges)
  ]
  # Contract one loss after another; the first product is the largest.
  value = np.tensordot(widths[-1], free, axes=(1, free.ndim - 1))
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
