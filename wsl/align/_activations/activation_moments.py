r"""Moments of the activations of two models, and their gain matrices.

For activations a and b of two models on the same rows, the sums of a, b, a²,
b² and a b^T are sufficient for all kinds of gains:

.. math:: \mathrm{E}[a b^\top] = \mathrm{Cov}(a, b) + \bar{a} \bar{b}^\top,
  \qquad \mathrm{corr}(a, b)_{ij} =
  \frac{\mathrm{Cov}(a, b)_{ij}}{\sigma(a_i)\, \sigma(b_j)}, \qquad
  \mathrm{E}[(a_i - b_j)^2] = \mathrm{Var}(a_i) + \mathrm{Var}(b_j) -
  2\, \mathrm{Cov}(a, b)_{ij} + (\bar{a}_i - \bar{b}_j)^2
"""

import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _soft, _symmetry

# Subscripts of ``einsum`` for the axes of units: of the fixed model, of the
# moving model, and of their products.
Labels: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
_CONSTANT = 1e-12  # the variance of a constant unit, relative to its mean²


class Moments(NamedTuple):
  """Sums over rows at one site, of deviations from a fixed origin.

  Attributes:
    labels: the einsum subscripts of the axes of units.
    origins: the means ``[*outer, n]`` of the first batch in each model.
    rows: the number of rows.
    sums: ``[*outer, n]`` for each model, float64.
    squares: sums of squares, ``[*outer, n]`` for each model, float64.
    products: sums of products of units of both models, float64 ``[*outer,
      *free outer, n, n]``.
  """

  labels: Labels
  origins: tuple[types.Array, types.Array]
  rows: int
  sums: tuple[np.ndarray, np.ndarray]
  squares: tuple[np.ndarray, np.ndarray]
  products: np.ndarray


def accumulate(
  moments: Moments | None,
  x: types.Array,
  y: types.Array,
  group: _symmetry.Factor,
  symmetry: _symmetry.Symmetry,
) -> Moments:
  """Adds the activations of a batch to the moments of a site.

  Products are computed in float32 or wider, by one program for each shape, and
  summed on the host in float64.

  Args:
    moments: those of the batches before; ``None`` for the first one.
    x: ``[rows, *outer, n]``, the activations of the fixed model.
    y: ``[rows, *outer, n]``, those of the moving model on the same inputs.
    group: the group of the units.
    symmetry: the symmetry of both models.

  Returns:
    The moments of all batches.
  """
  x, y = tree.wide(x), tree.wide(y)
  # Var(a) = E[a²] - E[a]² cancels catastrophically in float32 if the mean is
  # large; about the mean of the first batch both terms are small.
  if moments is None:
    moments = Moments(
      _einsum_labels(group, symmetry),
      (x.mean(0), y.mean(0)),
      0,
      (np.zeros(()), np.zeros(())),
      (np.zeros(()), np.zeros(())),
      np.zeros(()),
    )
  batch = _batch_sums(x, y, *moments.origins, labels=moments.labels)
  sums, squares, products = jax.tree.map(
    lambda old, new: old + np.asarray(new, np.float64), moments[3:], batch
  )
  rows = moments.rows + len(x)
  return moments._replace(
    rows=rows, sums=sums, squares=squares, products=products
  )


def gains(moments: Moments, kind: str) -> np.ndarray:
  """Returns the gains of a site, ``[*outer, *free outer, n, n]``.

  Args:
    moments: the moments of the site.
    kind: ``'inner'``, the mean product; ``'correlation'``, which is 0 for a
      constant unit; or ``'distance'``, minus the Euclidean distance over all
      rows.
  """
  new, old, result = moments.labels
  outer_product = lambda x, y: np.einsum(x, new, y, old, result)
  # The sums are of deviations x = a - a0 and y = b - b0 from the origins, so
  # that Cov(a, b) = E[x y^T] - E[x] E[y]^T and E[a] = a0 + E[x].
  shifts = [s / moments.rows for s in moments.sums]
  means = [
    np.asarray(origin, np.float64) + shift
    for origin, shift in zip(moments.origins, shifts)
  ]
  covariance = moments.products / moments.rows - outer_product(*shifts)
  if kind == 'inner':
    return covariance + outer_product(*means)
  if kind == 'distance':
    ones = [np.ones_like(mean) for mean in means]
    squared = -2 * covariance
    variances = [
      square / moments.rows - shift**2
      for square, shift in zip(moments.squares, shifts)
    ]
    squared = squared + outer_product(variances[0], ones[1])
    squared = squared + outer_product(ones[0], variances[1])
    gap = outer_product(means[0], ones[1]) - outer_product(ones[0], means[1])
    # Rounding can make the distance of equal units slightly negative.
    return -np.sqrt(moments.rows * np.maximum(squared + gap**2, 0))
  scales = []
  for square, shift, mean in zip(moments.squares, shifts, means):
    variance = square / moments.rows - shift**2
    # Rounding leaves a constant unit with about this much variance.
    varies = variance > _CONSTANT * mean**2
    deviation = np.sqrt(np.where(varies, variance, 1))
    scales += [np.where(varies, 1 / deviation, 0)]
  return covariance * outer_product(*scales)


def _einsum_labels(
  group: _symmetry.Factor, symmetry: _symmetry.Symmetry
) -> Labels:
  """Returns the einsum subscripts of the axes of units.

  Free outer groups and the group itself have separate subscripts in the two
  models; a pinned outer factor shares one.
  """
  free = _soft.free_outer(group, symmetry)
  names = (*group.outer, group.name)
  new = tuple(range(len(names)))
  old = tuple(
    i + len(names) if name in (*free, group.name) else i
    for i, name in enumerate(names)
  )
  free_old = [old[i] for i, name in enumerate(group.outer) if name in free]
  return new, old, (*new[:-1], *free_old, new[-1], old[-1])


@functools.partial(jax.jit, static_argnames='labels')
def _batch_sums(
  x: types.Array,
  y: types.Array,
  x_origin: types.Array,
  y_origin: types.Array,
  *,
  labels: Labels,
) -> tuple[tuple[types.Array, ...], tuple[types.Array, ...], types.Array]:
  """Sums a batch's deviations, their squares and their products over rows."""
  x, y = x - x_origin[None], y - y_origin[None]
  new, old, result = labels
  rows = max(old) + 1
  products = jnp.einsum(
    x, [rows, *new], y, [rows, *old], list(result), precision='highest'
  )
  both = (x, y)
  sums = tuple(z.sum(0) for z in both)
  return sums, tuple((z * z).sum(0) for z in both), products
