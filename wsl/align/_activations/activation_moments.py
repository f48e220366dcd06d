r"""Moments of the activations of two models, and their gain matrices.

For activations a and b of two models on the same rows, the sums of a, b, a²,
b² and a b^T are sufficient for all kinds of gains:

.. math:: \mathrm{E}[a b^\top] = \mathrm{Cov}(a, b) + \bar{a} \bar{b}^\top,
  \qquad \mathrm{corr}(a, b)_{ij} =
  \frac{\mathrm{Cov}(a, b)_{ij}}{\sigma(a_i)\, \sigma(b_j)}, \qquad
  \mathrm{E}[(a_i - b_j)^2] = \mathrm{Var}(a_i) + \mathrm{Var}(b_j) -
  2\, \mathrm{Cov}(a, b)_{ij} + (\bar{a}_i - \bar{b}_j)^2
"""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _nested_assignment

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
    grams: sums of products of units of each model, float64 ``[*outer, n, n]``;
      zero if they are not needed.
  """

  labels: Labels
  origins: tuple[types.Array, types.Array]
  rows: int
  sums: tuple[np.ndarray, np.ndarray]
  squares: tuple[np.ndarray, np.ndarray]
  products: np.ndarray
  grams: tuple[np.ndarray, np.ndarray]


def accumulate(
  moments: Moments | None,
  x: types.Array,
  y: types.Array,
  labels: Labels,
  *,
  exact: bool = False,
) -> Moments:
  """Adds the activations of a batch to the moments of a site.

  Products are computed in float32 or wider, by one program for each shape, and
  summed on the host in float64. For maps that are found by inverses or polar
  factors, which amplify rounding, they are computed on the host too.

  Args:
    moments: those of the batches before; ``None`` for the first one.
    x: ``[rows, *outer, n]``, the activations of the fixed model.
    y: ``[rows, *outer, n]``, those of the moving model on the same inputs.
    labels: the einsum subscripts of the axes of units.
    exact: whether to compute in float64 on the host, with the products of the
      units of each model.

  Returns:
    The moments of all batches.
  """
  x, y = tree.wide(x), tree.wide(y)
  if exact:
    host: Any = [np.asarray(z).astype(np.float64) for z in (x, y)]
    x, y = host
  # Var(a) = E[a²] - E[a]² cancels catastrophically in float32 if the mean is
  # large; about the mean of the first batch both terms are small.
  if moments is None:
    zero = np.zeros(())
    both = zero, zero
    means = x.mean(0), y.mean(0)
    moments = Moments(labels, means, 0, both, both, zero, both)
  compute = _host_sums if exact else _batch_sums
  batch = compute(x, y, *moments.origins, labels=labels)
  sums = jax.tree.map(
    lambda old, new: old + np.asarray(new, np.float64), moments[3:], batch
  )
  return Moments(labels, moments.origins, moments.rows + len(x), *sums)


def gains(moments: Moments, kind: str) -> np.ndarray:
  """Returns the gains of a site, ``[*outer, *free outer, n, n]``.

  Args:
    moments: the moments of the site.
    kind: ``'inner'``, the mean product; ``'cosine'``, the mean product over the
      root mean squares; ``'covariance'``; ``'correlation'``, which is 0 for a
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
  if kind == 'covariance':
    return covariance
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
  centred = kind == 'correlation'
  products = covariance if centred else covariance + outer_product(*means)
  inverses = [_inverse_root(second(moments, k, centred)) for k in (0, 1)]
  return products * outer_product(*inverses)


def second(moments: Moments, model: int, centred: bool) -> np.ndarray:
  """Returns the second moments of units of a model, float64 ``[*outer, n]``.

  Args:
    moments: the moments of the site.
    model: 0 for the fixed model, 1 for the moving one.
    centred: whether they are variances; else mean squares.
  """
  shift = moments.sums[model] / moments.rows
  mean = np.asarray(moments.origins[model], np.float64) + shift
  variance = moments.squares[model] / moments.rows - shift**2
  if not centred:
    return variance + mean**2
  # Rounding leaves a constant unit with about this much variance.
  return np.where(variance > _CONSTANT * mean**2, variance, 0)


def gram(moments: Moments, model: int, centred: bool) -> np.ndarray:
  """Returns the second moments of pairs of units, float64 ``[*outer, n, n]``.

  Args:
    moments: the moments of the site, with ``grams``.
    model: 0 for the fixed model, 1 for the moving one.
    centred: whether they are covariances; else mean products.
  """
  shift = moments.sums[model] / moments.rows
  found = moments.grams[model] / moments.rows - _outer(shift)
  if centred:
    return found
  return found + _outer(np.asarray(moments.origins[model], np.float64) + shift)


def _outer(x: np.ndarray) -> np.ndarray:
  """Returns the outer products of vectors ``[..., n]``."""
  return x[..., :, None] * x[..., None, :]


def _inverse_root(x: np.ndarray) -> np.ndarray:
  """Returns 1 / sqrt(x), and 0 where x is 0."""
  return np.where(x > 0, 1 / np.sqrt(np.where(x > 0, x, 1)), 0)


def einsum_labels(name: str, outer_of: Mapping[str, Any]) -> Labels:
  """Returns the einsum subscripts of the axes of units.

  Free outer groups and the group itself have separate subscripts in the two
  models; a pinned outer factor shares one.

  Args:
    name: the group.
    outer_of: for each group the factors on which its table depends.
  """
  outer, free = outer_of[name], _nested_assignment.free_outer(name, outer_of)
  names = (*outer, name)
  new = tuple(range(len(names)))
  old = tuple(
    i + len(names) if other in (*free, name) else i
    for i, other in enumerate(names)
  )
  free_old = [old[i] for i, other in enumerate(outer) if other in free]
  return new, old, (*new[:-1], *free_old, new[-1], old[-1])


@functools.partial(jax.jit, static_argnames='labels')
def _batch_sums(
  x: types.Array,
  y: types.Array,
  x_origin: types.Array,
  y_origin: types.Array,
  *,
  labels: Labels,
) -> tuple[Any, ...]:
  """Sums a batch's deviations, their squares and their products over rows."""
  x, y = x - x_origin[None], y - y_origin[None]
  new, old, result = labels
  rows = max(old) + 1
  products = jnp.einsum(
    x, [rows, *new], y, [rows, *old], list(result), precision='highest'
  )
  both = (x, y)
  sums = tuple(z.sum(0) for z in both)
  zero = jnp.zeros((), products.dtype)
  return sums, tuple((z * z).sum(0) for z in both), products, (zero, zero)


def _host_sums(
  x: Any, y: Any, x_origin: Any, y_origin: Any, *, labels: Labels
) -> tuple[Any, ...]:
  """Sums as ``_batch_sums``, and the products of units of each model."""
  x, y = x - x_origin[None], y - y_origin[None]
  new, old, result = labels
  rows = max(old) + 1
  einsum: Any = functools.partial(np.einsum, optimize=True)
  products = einsum(x, [rows, *new], y, [rows, *old], list(result))
  both = (x, y)
  # BLAS does not take the strides of a view.
  front = [np.ascontiguousarray(np.moveaxis(z, 0, -1)) for z in both]
  grams = tuple(z @ np.swapaxes(z, -1, -2) for z in front)
  sums = tuple(z.sum(0) for z in both)
  return sums, tuple((z * z).sum(0) for z in both), products, grams
