"""The exact line search of a polynomial given by its Lagrange form."""

from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
  """A point on the segment.

  Attributes:
    size: the step, 0 .. 1.
    gain: the increase of J over the start of the segment, >= 0.
    weights: values of the m Lagrange polynomials of the nodes from 1.
  """

  size: float
  gain: float
  weights: list[float]


def line_search(form: np.ndarray) -> Step:
  r"""Maximises the polynomial of ``objective.line_form`` over steps in [0, 1].

  .. math:: \max_{0 \le \gamma \le 1} w(\gamma)^\top K w(\gamma) - K_{00},
    \qquad w(\gamma) = (1, \ell_1(\gamma), \dots, \ell_m(\gamma))

  Args:
    form: K ``[m + 1, m + 1]``.

  Returns:
    The global maximum, of gain >= 0.
  """
  poly = np.polynomial.polynomial
  degree = len(form) - 1
  basis: list[np.ndarray] = [np.ones(1)]
  for a in range(1, degree + 1):
    roots = [b / degree for b in range(degree + 1) if b != a]
    basis += [poly.polyfromroots(roots)]
    basis[a] /= poly.polyval(a / degree, basis[a])
  gain = np.zeros(1)
  for a in range(degree + 1):
    for b in range(degree + 1):
      if a or b:
        term = form[a, b] * poly.polymul(basis[a], basis[b])
        gain = poly.polyadd(gain, term)
  # The maximum is at an end or at a real root of the derivative. The degree
  # can be below 2 m, so coefficients of rounding errors are trimmed first.
  slope = poly.polyder(gain)
  found = poly.polyroots(poly.polytrim(slope, 1e-14 * np.abs(slope).max()))
  real = found.real[(np.abs(found.imag) < 1e-6) & (found.real > 0)]
  sizes = np.asarray([0.0, 1.0, *real[real < 1]])
  values = poly.polyval(sizes, gain)
  values[0] = 0.0
  best = int(np.argmax(values))
  weights = [float(poly.polyval(sizes[best], b)) for b in basis[1:]]
  return Step(float(sizes[best]), float(values[best]), weights)
