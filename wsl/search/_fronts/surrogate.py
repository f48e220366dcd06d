"""Quadratic models of losses as functions of coefficients."""

from typing import Any, Literal, NamedTuple

import numpy as np

Link = Literal['identity', 'sigmoid', 'softplus']


class Surrogate(NamedTuple):
  """A quadratic model of M losses of n coefficients.

  Attributes:
    weights: of the monomials of degree 2, 1 and 0, ``[(n + 1)(n + 2)/2, M]``.
    link: the function that is applied to the quadratic.
  """

  weights: np.ndarray
  link: Link

  def __call__(self, points: Any) -> np.ndarray:
    """Returns the losses of points ``[B, n]``, ``[B, M]``."""
    return _apply(self.link, monomials(points) @ self.weights)


def fit_surrogate(
  points: Any, losses: Any, *, link: Link = 'identity'
) -> Surrogate:
  r"""Fits a quadratic of the coefficients to evaluated losses.

  .. math:: \hat\ell_m(c) = \mathrm{link}(c^\top A_m c + b_m^\top c + e_m)

  by least squares of the losses: a linear system with the identity, otherwise
  iterations that begin at the fit of the inverse link. It is exact if the
  losses are of this form and the points determine it.

  Args:
    points: ``[K, n]``, K ``>= (n + 1)(n + 2) / 2``.
    losses: ``[K, M]``, finite.
    link: 'sigmoid' for shares in (0, 1) such as errors, 'softplus' for positive
      numbers such as cross entropies.

  Returns:
    A ``Surrogate``.

  Raises:
    ValueError: if there are fewer points than unknowns, or losses are not
      finite or outside of the range of the link.

  Example:
    >>> x = np.linspace(0, 1, 5)[:, None]
    >>> fit = fit_surrogate(x, (x - 0.5) ** 2)
    >>> bool(np.allclose(fit([[2.0]]), 2.25))
    True

  Reference:
    Li et al., "MAP: Low-compute Model Merging with Amortized Pareto Fronts via
    Quadratic Approximation", 2024, arXiv:2406.07529, section 3.

  Differs from the official code in the start of the iterations, ones there.
  """
  points = np.asarray(points, np.float64)
  losses = np.asarray(losses, np.float64)
  features = monomials(points)
  if losses.ndim != 2 or len(losses) != len(points):
    raise ValueError(
      f'fit_surrogate: losses have shape {losses.shape} for {len(points)} '
      'points: give [K, M]'
    )
  if len(points) < features.shape[1]:
    raise ValueError(
      f'fit_surrogate: {len(points)} points for {features.shape[1]} unknowns: '
      'evaluate more'
    )
  ranges = {
    'identity': (-np.inf, np.inf), 'sigmoid': (0, 1), 'softplus': (0, np.inf)
  }  # fmt: skip
  if not isinstance(link, str) or link not in ranges:
    raise ValueError(
      f'fit_surrogate: link={link!r}: expected one of {[*ranges]}'
    )
  low, high = ranges[link]
  if not ((losses >= low) & (losses <= high) & np.isfinite(losses)).all():
    raise ValueError(
      f'fit_surrogate: losses must be finite and in [{low}, {high}] with '
      f"link='{link}'"
    )
  start = np.linalg.lstsq(features, _inverse(link, losses), rcond=None)[0]
  if link == 'identity':
    return Surrogate(start, link)
  from scipy import optimize

  columns = [
    optimize.least_squares(
      lambda w, y=y: _apply(link, features @ w) - y,
      x0,
      jac=lambda w: _slope(link, features @ w)[:, None] * features,
      xtol=1e-15,
      ftol=1e-15,
      gtol=1e-15,
    ).x
    for x0, y in zip(start.T, losses.T)
  ]
  return Surrogate(np.stack(columns, axis=1), link)


def monomials(points: Any) -> np.ndarray:
  """Returns all products of at most two coordinates, ``[K, n'(n' + 1)/2]``."""
  points = np.asarray(points, np.float64)
  if points.ndim != 2:
    raise ValueError(f'points have shape {points.shape}: give [K, n]')
  extended = np.concatenate([points, np.ones((len(points), 1))], axis=1)
  i, j = np.triu_indices(extended.shape[1])
  return extended[:, i] * extended[:, j]


def _apply(link: Link, x: np.ndarray) -> np.ndarray:
  if link == 'sigmoid':
    return 0.5 * (1 + np.tanh(x / 2))
  return np.logaddexp(x, 0) if link == 'softplus' else x


def _slope(link: Link, x: np.ndarray) -> np.ndarray:
  """Returns the derivative of the link."""
  share = _apply('sigmoid', x)
  return share * (1 - share) if link == 'sigmoid' else share


def _inverse(link: Link, y: np.ndarray) -> np.ndarray:
  """Returns the argument of the link, kept finite."""
  if link == 'sigmoid':
    y = np.clip(y, 1e-3, 1 - 1e-3)
    return np.log(y / (1 - y))
  return np.log(np.expm1(np.maximum(y, 1e-3))) if link == 'softplus' else y
