r"""Moments of the activations of two models, and their gain matrices.

For activations a and b of two models on the same rows, the sums of a, b, a²,
b² and a b^T are sufficient for both kinds of gains:

.. math:: \mathrm{E}[a b^\top] = \mathrm{Cov}(a, b) + \bar{a} \bar{b}^\top,
  \qquad \mathrm{corr}(a, b)_{ij} =
  \frac{\mathrm{Cov}(a, b)_{ij}}{\sigma(a_i)\, \sigma(b_j)}
"""

from collections.abc import Mapping
import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _assignment, _permutation, _soft, _symmetry

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
    kind: ``'inner'``, the mean product; or ``'correlation'``, which is 0 for a
      constant unit.
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
  scales = []
  for square, shift, mean in zip(moments.squares, shifts, means):
    variance = square / moments.rows - shift**2
    # Rounding leaves a constant unit with about this much variance.
    varies = variance > _CONSTANT * mean**2
    deviation = np.sqrt(np.where(varies, variance, 1))
    scales += [np.where(varies, 1 / deviation, 0)]
  return covariance * outer_product(*scales)


def assign(
  gains: Mapping[str, np.ndarray],
  *,
  symmetry: _symmetry.Symmetry,
  solver: _assignment.Solver,
) -> _permutation.Permutation:
  r"""Finds the permutation of maximum gain, inner groups first.

  .. math:: S[u, o] \leftarrow S[u, o] + \sum_{\text{inner}} \max_\tau
    \sum_i G[u, o, i, \tau(i)]

  The gain of a pair (u, o) of outer indices includes that of its best inner
  assignments. This is exact if the outer groups of each group are nested in a
  chain. If they are independent, each receives the mean over the old indices of
  the others, which are not matched yet.

  Args:
    gains: for some groups ``[*outer, *free outer, n, n]``; a group that has
      none, itself or through a dependent group, keeps its order.
    symmetry: the symmetry of the models.
    solver: an assignment solver.

  Returns:
    The permutation, for each group ``[*outer, n]``.
  """
  total = dict(gains)
  indices: dict[str, np.ndarray] = {}
  for group in reversed(symmetry.groups):  # inner groups first
    shape = _soft.shape(group, symmetry)
    if group.name not in total:
      identity = np.arange(group.size, dtype=np.int32)
      indices[group.name] = np.broadcast_to(identity, shape[:-1])
      continue
    gain = total[group.name]
    index = np.asarray(solver(gain))
    indices[group.name] = index
    value = np.take_along_axis(gain, index[..., None], -1).sum((-2, -1))
    for outer in _direct_outer(group, symmetry):
      outer_gain = _outer_gain(value, group, outer, symmetry)
      total[outer.name] = total.get(outer.name, np.zeros(())) + outer_gain
  return _soft.descend(indices, symmetry=symmetry)


def _direct_outer(
  group: _symmetry.Factor, symmetry: _symmetry.Symmetry
) -> list[_symmetry.Factor]:
  """Returns the innermost of the free outer groups of a group."""
  free = [symmetry.factor[name] for name in _soft.free_outer(group, symmetry)]
  return [f for f in free if not any(f.name in other.outer for other in free)]


def _outer_axes(
  group: _symmetry.Factor, symmetry: _symmetry.Symmetry
) -> tuple[list[str], list[str]]:
  """Labels the new and the old (primed) outer indices of a group's gains."""
  free = _soft.free_outer(group, symmetry)
  return list(group.outer), [name + "'" for name in free]


def _outer_gain(
  value: np.ndarray,
  group: _symmetry.Factor,
  outer: _symmetry.Factor,
  symmetry: _symmetry.Symmetry,
) -> np.ndarray:
  """Reduces values ``[*outer, *free outer]`` to gains of one outer group.

  Sums over new indices on which the outer group does not depend; averages over
  old ones.
  """
  new, old = _outer_axes(group, symmetry)
  kept_new, kept_old = _outer_axes(outer, symmetry)
  kept = [*kept_new, *kept_old, outer.name, outer.name + "'"]
  labels = [*new, *old]
  for name in [name for name in labels if name not in kept]:
    axis = labels.index(name)
    labels.pop(axis)
    value = value.mean(axis) if name in old else value.sum(axis)
  return value.transpose([labels.index(name) for name in kept])


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
