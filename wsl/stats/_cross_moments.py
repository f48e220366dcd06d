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
  r"""Computes means, covariances and cross-covariances of two sets of features.

  .. math:: C_{xy} = \frac{1}{n} \sum_{i=1}^{n} (x_i - \bar x)
    (y_i - \bar y)^\top

  One pass over the data: each batch is evaluated once by both functions, each
  :math:`x x^\top` is summed once for all its pairs, and features are freed
  after their batch. Sums are taken about the mean of the first batch, in
  float32 or wider, so that features with a large mean lose no precision.

  Args:
    source: maps inputs to a sequence of features ``[B, ..., d]``. A
      ``jax.tree_util.Partial`` carries its arrays as arguments; any other
      function must be hashable, and one compiled program serves it.
    target: such a function too, to features ``[B, ..., m]``.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``; inputs
      are an array ``[B, ...]`` or a pytree of them. Batches of one size
      compile once.
    pairs: (i, j), indices of the features of the source and of the target; all
      pairs by default. Rows are the entries of all axes but the last; both have
      the same number of them.
    similarity: whether to sum the covariance of y and the norms, which ``cka``,
      ``cca`` and ``residual`` need and a least squares map does not.

  Returns:
    The moments of each pair. The pairs of one source share the array ``xx``,
    the pairs of one target ``yy``.

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
  tree.check_not_narrowed('cross_moments', (source, target))
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
  """Returns zero sums, after checking the pairs and the features' shapes."""
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
  """Adds the features of one batch to the sums."""
  return _cross_sums.add(total, *_both(source, target, inputs))


# The sums of all pairs are large: donate the old ones to the new.
_add = jax.jit(_add_traced, donate_argnums=0)


def _both(source: FeaturesFn, target: FeaturesFn, inputs: Any) -> Any:
  """Returns both networks' features as rows ``[n, d]`` of one float dtype."""
  features = source(inputs), target(inputs)
  for found in features:
    tree.check_real(
      'cross_moments', found, 'give real and imaginary parts as features'
    )
  double = any(x.dtype == jnp.float64 for x in jax.tree.leaves(features))
  dtype = jnp.float64 if double else jnp.float32
  rows = lambda x: x.reshape(-1, x.shape[-1]).astype(dtype)
  return tuple([rows(x) for x in side] for side in features)
