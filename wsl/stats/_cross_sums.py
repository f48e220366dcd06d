"""Sums of products of features, accumulated over batches.

All sums are taken about a point p close to the mean (the mean of the first
batch), and moved to the mean at the end: the subtraction of n m m^T from the
raw second moments would cancel where the mean is large.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


class Rows(NamedTuple):
  """Sums over the rows of one set of features, about a point.

  Attributes:
    point: p ``[d]``, the mean of the first batch.
    x: of x - p, ``[d]``.
    xx: of (x - p) (x - p)^T, ``[d, d]``; ``[0, 0]`` if it is not needed.
    norms: of |x - p|^2 (x - p) ``[d]``, and of |x - p|^4.
  """

  point: types.Array
  x: types.Array
  xx: types.Array
  norms: tuple[types.Array, types.Array] | None


class Products(NamedTuple):
  """Sums over the rows of two sets of features, each about its point.

  Attributes:
    xy: of x y^T, ``[d, m]``.
    norms: of x |y|^2 ``[d]``, of |x|^2 y ``[m]``, and of |x|^2 |y|^2.
  """

  xy: types.Array
  norms: tuple[types.Array, types.Array, types.Array] | None


class Sums(NamedTuple):
  """The sums of all pairs (i, j) of features of a source and a target."""

  rows: types.Array
  source: Mapping[int, Rows]
  target: Mapping[int, Rows]
  pairs: Mapping[tuple[int, int], Products]


def start(
  xs: Sequence[types.Array],
  ys: Sequence[types.Array],
  pairs: Sequence[tuple[int, int]],
  similarity: bool,
) -> Sums:
  """Returns zero sums.

  Args:
    xs: the source's features, ``[n, d]``, or their shapes.
    ys: the target's.
    pairs: the indices (i, j) of the pairs.
    similarity: whether to sum the target's products and all norms.

  Returns:
    Zeros.
  """

  def rows(x: types.Array, *, products: bool) -> Rows:
    zeros = functools.partial(_zeros, x.dtype)
    d = x.shape[1]
    xx = zeros(d, d) if products else zeros(0, 0)
    return Rows(
      zeros(d), zeros(d), xx, (zeros(d), zeros()) if similarity else None
    )

  def products(x: types.Array, y: types.Array) -> Products:
    zeros = functools.partial(_zeros, x.dtype)
    d, m = x.shape[1], y.shape[1]
    norms = (zeros(d), zeros(m), zeros()) if similarity else None
    return Products(zeros(d, m), norms)

  return Sums(
    _zeros(jnp.int_),
    {i: rows(xs[i], products=True) for i, _ in pairs},
    {j: rows(ys[j], products=similarity) for _, j in pairs},
    {(i, j): products(xs[i], ys[j]) for i, j in pairs},
  )


def _zeros(dtype: Any, *shape: int) -> types.Array:
  """Makes zeros on the host, which compiles nothing."""
  return jnp.asarray(np.zeros(shape, dtype))


def add(
  total: Sums, xs: Sequence[types.Array], ys: Sequence[types.Array]
) -> Sums:
  """Adds the rows of a batch; the first batch defines the points.

  Args:
    total: the sums of the batches before.
    xs: the source's features, ``[n, d]``.
    ys: the target's.

  Returns:
    The sums with this batch.
  """
  first = total.rows == 0
  centred: list[dict[int, types.Array]] = []
  sides: list[dict[int, Rows]] = []
  for features, olds in ((xs, total.source), (ys, total.target)):
    points = {
      i: jnp.where(first, features[i].mean(0), old.point)
      for i, old in olds.items()
    }
    rows = {i: features[i] - point[None] for i, point in points.items()}
    centred.append(rows)
    sides.append({i: _rows(old, points[i], rows[i]) for i, old in olds.items()})
  pairs = {
    (i, j): _products(old, centred[0][i], centred[1][j])
    for (i, j), old in total.pairs.items()
  }
  count = next(iter(centred[0].values())).shape[0]
  return Sums(total.rows + count, sides[0], sides[1], pairs)


def _rows(old: Rows, point: types.Array, x: types.Array) -> Rows:
  """Adds rows x, taken about the point, to the sums of one set."""
  xx = old.xx + tree.matmul(x.T, x) if old.xx.size else old.xx
  norms = old.norms
  if norms is not None:
    square = jnp.square(x).sum(1)
    norms = (
      norms[0] + tree.matmul(x.T, square),
      norms[1] + tree.matmul(square, square),
    )
  return Rows(point, old.x + x.sum(0), xx, norms)


def _products(old: Products, x: types.Array, y: types.Array) -> Products:
  """Adds rows x and y, each about its point, to the sums of a pair."""
  norms = old.norms
  if norms is not None:
    a, b = jnp.square(x).sum(1), jnp.square(y).sum(1)
    parts = tree.matmul(x.T, b), tree.matmul(y.T, a), tree.matmul(a, b)
    norms = norms[0] + parts[0], norms[1] + parts[1], norms[2] + parts[2]
  return Products(old.xy + tree.matmul(x.T, y), norms)


def moments(total: Sums) -> dict[tuple[int, int], types.CrossMoments]:
  """Moves the sums from the points to the means, and divides them by n.

  Args:
    total: the sums.

  Returns:
    The moments of each pair. Pairs share the arrays of their common side.
  """
  source, target, pairs = _centred(total)
  return {
    (i, j): types.CrossMoments(
      total.rows,
      source[i].mean,
      target[j].mean,
      source[i].xx,
      xy,
      None if norms is None else target[j].xx,
      norms,
    )
    for (i, j), (xy, norms) in pairs.items()
  }


class _Side(NamedTuple):
  """One set's moments, and the shift from the point to the mean."""

  mean: types.Array
  xx: types.Array
  shift: types.Array
  fourth: types.Array  # the mean of |x|^4


@jax.jit
def _centred(total: Sums) -> tuple[Any, Any, Any]:
  """Computes means, covariances and norms about the means.

  With a = mean - p, the covariance is mean((x - p) (x - p)^T) - a a^T.
  """
  n = total.rows

  def side(rows: Rows) -> _Side:
    a = rows.x / n.astype(rows.x.dtype)
    mean = rows.point + a
    if not rows.xx.size:
      return _Side(mean, rows.xx, a, a[0])
    xx = rows.xx / n.astype(a.dtype) - a[:, None] * a[None]
    if rows.norms is None:
      return _Side(mean, xx, a, a[0])
    cubes, power = rows.norms
    fourth = _norms(n, a, a, rows, rows, rows.xx, (cubes, cubes, power))
    return _Side(mean, xx, a, fourth)

  source, target = (
    {i: side(rows) for i, rows in rows_of.items()}
    for rows_of in (total.source, total.target)
  )
  pairs = {}
  for (i, j), pair in total.pairs.items():
    x, y, norms = source[i], target[j], None
    xy = pair.xy / n.astype(x.shift.dtype) - x.shift[:, None] * y.shift[None]
    if pair.norms is not None:
      rows = total.source[i], total.target[j]
      both = _norms(n, x.shift, y.shift, *rows, pair.xy, pair.norms)
      norms = jnp.stack([x.fourth, both, y.fourth])
    pairs[i, j] = xy, norms
  return source, target, pairs


def _norms(
  n: types.Array,
  a: types.Array,
  b: types.Array,
  x: Rows,
  y: Rows,
  xy: types.Array,
  norms: tuple[types.Array, types.Array, types.Array],
) -> types.Array:
  """Returns the mean of |x - a|^2 |y - b|^2, where a and b are the means."""
  # Expand (|x|^2 - 2 a'x + |a|^2) (|y|^2 - 2 b'y + |b|^2) and take means:
  #   E |x|^2|y|^2 - 2 a' E x|y|^2 - 2 b' E |x|^2 y
  #   + |b|^2 E |x|^2 + |a|^2 E |y|^2 + 4 a' E[x y'] b
  #   - 2 |b|^2 a' E x - 2 |a|^2 b' E y + |a|^2 |b|^2,
  # where the last line is -3 |a|^2 |b|^2, as E x = a and E y = b.
  dot = tree.matmul
  aa, bb = dot(a, a), dot(b, b)
  linear = dot(a, norms[0]) + dot(b, norms[1])
  cross = dot(a, dot(xy, b))
  square = bb * jnp.trace(x.xx) + aa * jnp.trace(y.xx) + 4 * cross
  mean = (norms[2] - 2 * linear + square) / n.astype(a.dtype)
  return mean - 3 * aa * bb
