"""Moments of the features of two networks, streamed over batches."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from wsl import batches as batches_lib
from wsl import tree, types
from wsl.stats import _cross_sums

FeaturesFn: TypeAlias = Callable[[Any], Sequence[types.Array]]


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
  source, target = tree.partial(source), tree.partial(target)
  total = None
  for batch in batches_lib.stream(batches, name='cross_moments'):
    inputs = batches_lib.inputs_of(batch)
    if total is None:
      total = _start(source, target, inputs, pairs, similarity)
    args = total, source, target, inputs
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))
    total = _add_traced(*args) if traced else _add(*args)
  assert total is not None
  return _cross_sums.moments(total)


def _start(
  source: FeaturesFn,
  target: FeaturesFn,
  inputs: Any,
  pairs: Iterable[tuple[int, int]] | None,
  similarity: bool,
) -> _cross_sums.Sums:
  """Returns sums over no rows, after checking what there will be to add."""
  xs, ys = jax.eval_shape(_both, source, target, inputs)
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
  return _cross_sums.start(xs, ys, chosen, similarity)


def _add_traced(
  total: _cross_sums.Sums, source: FeaturesFn, target: FeaturesFn, inputs: Any
) -> _cross_sums.Sums:
  return _cross_sums.add(total, *_both(source, target, inputs))


# The sums of all pairs are large: the old ones make room for the new.
_add = jax.jit(_add_traced, donate_argnums=0)


def _both(source: FeaturesFn, target: FeaturesFn, inputs: Any) -> Any:
  """Returns the features of both as rows ``[n, d]``, of one float dtype."""
  features = source(inputs), target(inputs)
  double = any(x.dtype == jnp.float64 for x in jax.tree.leaves(features))
  dtype = jnp.float64 if double else jnp.float32
  rows = lambda x: x.reshape(-1, x.shape[-1]).astype(dtype)
  return tuple([rows(x) for x in side] for side in features)
