"""Moments of activations of two models, and the best pairing of units."""

from collections.abc import Mapping
import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _assignment, _permutation, _soft, _symmetry

Labels: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class Moments(NamedTuple):
  """Sums over rows at one site, of what differs from a first mean.

  Attributes:
    labels: numbers of the axes of units in one model, in the other, and of
      their products.
    origins: the means ``[*outer, n]`` of the first batch in either model.
    rows: how many rows were seen.
    sums: ``[*outer, n]`` for either model, float64.
    squares: the same of squares.
    products: ``[*outer, *free outer, n, n]``, of the one with the other model.
  """

  labels: Labels
  origins: tuple[types.Array, types.Array]
  rows: int
  sums: tuple[np.ndarray, np.ndarray]
  squares: tuple[np.ndarray, np.ndarray]
  products: np.ndarray


def accumulate(
  before: Moments | None,
  x: types.Array,
  y: types.Array,
  group: _symmetry.Factor,
  symmetry: _symmetry.Symmetry,
) -> Moments:
  """Adds rows ``[rows, *outer, n]`` of two models to the moments of a site.

  Products are made in float32 or wider, in one program for each shape, and
  added up on the host in float64. Means are taken off before, so that little is
  lost where they are large.
  """
  x, y = tree.wide(x), tree.wide(y)
  if before is None:
    before = Moments(
      _labels(group, symmetry),
      (x.mean(0), y.mean(0)),
      0,
      (np.zeros(()), np.zeros(())),
      (np.zeros(()), np.zeros(())),
      np.zeros(()),
    )
  batch = _sums(x, y, *before.origins, labels=before.labels)
  sums, squares, products = jax.tree.map(
    lambda old, new: old + np.asarray(new, np.float64), before[3:], batch
  )
  rows = before.rows + len(x)
  return before._replace(
    rows=rows, sums=sums, squares=squares, products=products
  )


def gains(moments: Moments, kind: str) -> np.ndarray:
  """Returns what pairs of units are worth, ``[*outer, *free outer, n, n]``.

  Args:
    moments: those of one site.
    kind: ``'inner'``, the mean product; or ``'correlation'``, which is 0 for a
      unit that does not vary.
  """
  new, old, result = moments.labels
  outer = lambda x, y: np.einsum(x, new, y, old, result)
  shifts = [s / moments.rows for s in moments.sums]
  means = [
    np.asarray(origin, np.float64) + shift
    for origin, shift in zip(moments.origins, shifts)
  ]
  covariance = moments.products / moments.rows - outer(*shifts)
  if kind == 'inner':
    return covariance + outer(*means)
  scales = []
  for square, shift, mean in zip(moments.squares, shifts, means):
    variance = square / moments.rows - shift**2
    varies = variance > 1e-12 * mean**2  # a constant is rounded to about that
    deviation = np.sqrt(np.where(varies, variance, 1))
    scales += [np.where(varies, 1 / deviation, 0)]
  return covariance * outer(*scales)


def assign(
  gains: Mapping[str, np.ndarray],
  *,
  symmetry: _symmetry.Symmetry,
  solver: _assignment.Solver,
) -> _permutation.Permutation:
  r"""Finds the permutation of the greatest gain, from the inside out.

  Pairing outer index u with o is worth its own gain and that of the best
  pairings of what depends on it. This is exact where the outer groups of a
  group depend on each other; those that do not each count a mean over the old
  indices of the others.

  Args:
    gains: for some groups ``[*outer, *free outer, n, n]``; one that has none,
      and on which nothing else depends, keeps its order.
    symmetry: the symmetry of the models.
    solver: an assignment solver.

  Returns:
    The permutation, for each group ``[*outer, n]``.
  """
  total = dict(gains)
  indices: dict[str, np.ndarray] = {}
  for group in reversed(symmetry.groups):  # inner ones come first
    shape = _soft.shape(group, symmetry)
    if group.name not in total:
      still = np.arange(group.size, dtype=np.int32)
      indices[group.name] = np.broadcast_to(still, shape[:-1])
      continue
    gain = total[group.name]
    index = np.asarray(solver(gain))
    indices[group.name] = index
    value = np.take_along_axis(gain, index[..., None], -1).sum((-2, -1))
    for outer in _nearest(group, symmetry):
      share = _reduce(value, group, outer, symmetry)
      total[outer.name] = total.get(outer.name, np.zeros(())) + share
  return _soft.descend(indices, symmetry=symmetry)


def _nearest(
  group: _symmetry.Factor, symmetry: _symmetry.Symmetry
) -> list[_symmetry.Factor]:
  """Returns the free outer groups that no other of them depends on."""
  free = [symmetry.factor[name] for name in _soft.free_outer(group, symmetry)]
  return [f for f in free if not any(f.name in other.outer for other in free)]


def _names(
  group: _symmetry.Factor, symmetry: _symmetry.Symmetry
) -> tuple[list[str], list[str]]:
  """Names the leading axes of a group's matrices, new and old ones."""
  free = _soft.free_outer(group, symmetry)
  return list(group.outer), [name + "'" for name in free]


def _reduce(
  value: np.ndarray,
  group: _symmetry.Factor,
  outer: _symmetry.Factor,
  symmetry: _symmetry.Symmetry,
) -> np.ndarray:
  """Turns ``[*outer, *free outer]`` into gains of an outer group."""
  new, old = _names(group, symmetry)
  kept_new, kept_old = _names(outer, symmetry)
  kept = [*kept_new, *kept_old, outer.name, outer.name + "'"]
  labels = [*new, *old]
  for name in [name for name in labels if name not in kept]:
    axis = labels.index(name)
    labels.pop(axis)
    value = value.mean(axis) if name in old else value.sum(axis)
  return value.transpose([labels.index(name) for name in kept])


def _labels(group: _symmetry.Factor, symmetry: _symmetry.Symmetry) -> Labels:
  free = _soft.free_outer(group, symmetry)
  names = (*group.outer, group.name)
  new = tuple(range(len(names)))
  old = tuple(
    i + len(names) if name in (*free, group.name) else i
    for i, name in enumerate(names)
  )
  pairs = [old[i] for i, name in enumerate(group.outer) if name in free]
  return new, old, (*new[:-1], *pairs, new[-1], old[-1])


@functools.partial(jax.jit, static_argnames='labels')
def _sums(
  x: types.Array,
  y: types.Array,
  x_origin: types.Array,
  y_origin: types.Array,
  *,
  labels: Labels,
) -> tuple[tuple[types.Array, ...], tuple[types.Array, ...], types.Array]:
  x, y = x - x_origin[None], y - y_origin[None]
  new, old, result = labels
  rows = max(old) + 1
  products = jnp.einsum(
    x, [rows, *new], y, [rows, *old], list(result), precision='highest'
  )
  both = (x, y)
  sums = tuple(z.sum(0) for z in both)
  return sums, tuple((z * z).sum(0) for z in both), products
