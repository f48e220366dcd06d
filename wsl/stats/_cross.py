"""Moments of the features of two networks, streamed over batches."""

from collections.abc import Callable, Iterable, Sequence
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stats import _batches

FeaturesFn: TypeAlias = Callable[[Any], Sequence[types.Array]]
Pairs: TypeAlias = tuple[tuple[int, int], ...]


class _Rows(NamedTuple):
  """Sums over the rows of one set of features, about a point."""

  point: types.Array  # p [d], the mean of the first batch
  x: types.Array  # of x - p, [d]
  xx: types.Array | None  # of (x - p) (x - p)^T, [d, d]
  cube: types.Array | None  # of |x - p|^2 (x - p), [d]
  fourth: types.Array | None  # of |x - p|^4


class _Both(NamedTuple):
  """Sums over the rows of two sets of features, each about its point."""

  xy: types.Array  # [d, m]
  x_yy: types.Array | None  # of x |y|^2, [d]
  xx_y: types.Array | None  # of |x|^2 y, [m]
  xx_yy: types.Array | None  # of |x|^2 |y|^2


class _Sums(NamedTuple):
  rows: types.Array
  source: dict[int, _Rows]
  target: dict[int, _Rows]
  both: dict[tuple[int, int], _Both]


def cross_moments(
  source: FeaturesFn,
  target: FeaturesFn,
  batches: Iterable[Any],
  *,
  pairs: Iterable[tuple[int, int]] | None = None,
  similarity: bool = True,
) -> dict[tuple[int, int], types.CrossMoments]:
  r"""Computes how the features of two networks vary, alone and together.

  One pass: each batch goes once through both functions, each :math:`x x^\top`
  is summed once whatever the number of its pairs, and no features outlive
  their batch. The sums are taken about the mean of the first batch, in float32
  or wider, so that features with a large mean lose no precision.

  Args:
    source: maps inputs to a sequence of features ``[B, ..., d]``. A
      ``jax.tree_util.Partial`` carries its arrays as arguments; any other
      function must be hashable, and one compiled program serves it.
    target: likewise, to features ``[B, ..., m]``.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``; inputs
      are an array ``[B, ...]`` or a pytree of them. Batches of one size
      compile once.
    pairs: (i, j): which features of the source go with which of the target;
      all by default. The two have as many rows, which are the entries of all
      axes but the last.
    similarity: whether to sum what ``cka``, ``cca`` and ``residual`` need
      beyond a least squares map: the covariance of y, and norms.

  Returns:
    By pair, its moments; the pairs of one source share an array ``xx``, those
    of one target ``yy``.

  Raises:
    ValueError: if there are no batches, no such features, or a pair's rows do
      not agree.

  Example:
    >>> import jax.numpy as jnp
    >>> twice = lambda x: [2 * x]
    >>> plain = lambda x: [x, -x]
    >>> data = [jnp.asarray([[1.0], [3.0]]), jnp.asarray([[5.0], [7.0]])]
    >>> found = cross_moments(plain, twice, data)
    >>> sorted(found), found[1, 0].xy.tolist(), found[1, 0].mean_y.tolist()
    ([(0, 0), (1, 0)], [[-10.0]], [8.0])
  """
  source, target = _partial(source), _partial(target)
  total = None
  for batch in _batches.stream(batches, name='cross_moments'):
    inputs = _batches.inputs_of(batch)
    if total is None:
      total = _start(source, target, inputs, pairs, similarity)
    total = _add(total, source, target, inputs)
  assert total is not None
  return _finish(total)


def _partial(fn: FeaturesFn) -> FeaturesFn:
  partial = jax.tree_util.Partial
  return fn if isinstance(fn, partial) else partial(fn)


def _start(
  source: FeaturesFn,
  target: FeaturesFn,
  inputs: Any,
  pairs: Iterable[tuple[int, int]] | None,
  similarity: bool,
) -> _Sums:
  """Returns sums over no rows, after checking what there will be to add."""
  both = lambda *args: tuple(_features(fn, args[2]) for fn in args[:2])
  xs, ys = jax.eval_shape(both, source, target, inputs)
  every = [(i, j) for i in range(len(xs)) for j in range(len(ys))]
  chosen = every if pairs is None else list(pairs)
  if not chosen:
    raise ValueError('cross_moments: no pairs of features, give one or more')
  for pair in chosen:
    if pair not in every:
      raise ValueError(
        f'cross_moments: no pair {pair}: the source has features 0 .. '
        f'{len(xs) - 1}, the target 0 .. {len(ys) - 1}'
      )
    x, y = xs[pair[0]], ys[pair[1]]
    if x.shape[0] != y.shape[0]:
      raise ValueError(
        f'cross_moments: the features of pair {pair} have {x.shape[0]} and '
        f'{y.shape[0]} rows: bring them to the same grid first'
      )

  def rows(x: Any, gram: bool) -> _Rows:
    zeros = functools.partial(jnp.zeros, dtype=x.dtype)
    d = x.shape[1]
    more = (zeros(d), zeros(())) if similarity else (None, None)
    return _Rows(zeros(d), zeros(d), zeros((d, d)) if gram else None, *more)

  def products(x: Any, y: Any) -> _Both:
    zeros = functools.partial(jnp.zeros, dtype=jnp.result_type(x, y))
    d, m = x.shape[1], y.shape[1]
    more = (zeros(d), zeros(m), zeros(())) if similarity else (None,) * 3
    return _Both(zeros((d, m)), *more)

  return _Sums(
    jnp.zeros((), int),
    {i: rows(xs[i], True) for i, _ in chosen},
    {j: rows(ys[j], similarity) for _, j in chosen},
    {(i, j): products(xs[i], ys[j]) for i, j in chosen},
  )


def _features(fn: FeaturesFn, inputs: Any) -> list[types.Array]:
  """Returns features as rows ``[n, d]``, in float32 or wider."""
  return [tree.wide(x).reshape(-1, x.shape[-1]) for x in fn(inputs)]


@functools.partial(jax.jit, donate_argnums=0)
def _add(
  total: _Sums, source: FeaturesFn, target: FeaturesFn, inputs: Any
) -> _Sums:
  """Adds the rows of a batch; the first one gives the points."""
  first = total.rows == 0
  xs, source_rows = _add_rows(total.source, _features(source, inputs), first)
  ys, target_rows = _add_rows(total.target, _features(target, inputs), first)
  both = {
    (i, j): _add_products(sums, xs[i], ys[j])
    for (i, j), sums in total.both.items()
  }
  rows = total.rows + next(iter(xs.values())).shape[0]
  return _Sums(rows, source_rows, target_rows, both)


def _add_rows(
  total: dict[int, _Rows], features: list[types.Array], first: types.Array
) -> tuple[dict[int, types.Array], dict[int, _Rows]]:
  """Returns the features about their points, and the sums with them added."""
  centred, sums = {}, {}
  for i, old in total.items():
    point = jnp.where(first, features[i].mean(0), old.point)
    x = features[i] - point[None]
    xx = None if old.xx is None else old.xx + _product(x, x)
    cube = fourth = None
    if old.cube is not None:
      norms = jnp.square(x).sum(1)
      cube, fourth = old.cube + _product(x, norms), old.fourth + norms @ norms
    centred[i] = x
    sums[i] = _Rows(point, old.x + x.sum(0), xx, cube, fourth)
  return centred, sums


def _add_products(old: _Both, x: types.Array, y: types.Array) -> _Both:
  dtype = old.xy.dtype
  x, y = x.astype(dtype), y.astype(dtype)
  xy = old.xy + _product(x, y)
  if old.x_yy is None:
    return _Both(xy, None, None, None)
  a, b = jnp.square(x).sum(1), jnp.square(y).sum(1)
  return _Both(
    xy, old.x_yy + _product(x, b), old.xx_y + _product(y, a), old.xx_yy + a @ b
  )


def _product(x: types.Array, y: types.Array) -> types.Array:
  """Returns x^T y, ``[d, ...]``, in full precision."""
  return jnp.matmul(x.T, y, precision='highest')


@jax.jit
def _finish(total: _Sums) -> dict[tuple[int, int], types.CrossMoments]:
  """Moves the sums from the points to the means, and divides them by n."""
  return {
    (i, j): _moments(total.rows, total.source[i], total.target[j], both)
    for (i, j), both in total.both.items()
  }


def _moments(
  rows: types.Array, x: _Rows, y: _Rows, both: _Both
) -> types.CrossMoments:
  n = rows.astype(both.xy.dtype)
  a, b = x.x / n, y.x / n
  covariance = lambda sums, a, b: sums / n - a[:, None] * b[None]
  norms = yy = None
  if y.xx is not None:
    yy = covariance(y.xx, b, b)
    norms = jnp.stack(
      [
        _norms(n, a, a, _Both(x.xx, x.cube, x.cube, x.fourth), x.xx, x.xx),
        _norms(n, a, b, both, x.xx, y.xx),
        _norms(n, b, b, _Both(y.xx, y.cube, y.cube, y.fourth), y.xx, y.xx),
      ]
    )
  return types.CrossMoments(
    rows,
    x.point + a,
    y.point + b,
    covariance(x.xx, a, a),
    covariance(both.xy, a, b),
    yy,
    norms,
  )


def _norms(
  n: types.Array,
  a: types.Array,
  b: types.Array,
  both: _Both,
  xx: types.Array,
  yy: types.Array,
) -> types.Array:
  """Returns the mean of |x - a|^2 |y - b|^2, for means a and b."""
  aa, bb = a @ a, b @ b
  linear = b @ both.xx_y + a @ both.x_yy
  square = bb * jnp.trace(xx) + aa * jnp.trace(yy) + 4 * (a @ both.xy @ b)
  return (both.xx_yy - 2 * linear + square) / n - 3 * aa * bb
