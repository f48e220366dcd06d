"""Means of metrics over a data set, in batches."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import batches as batches_lib
from wsl import tree, types
from wsl.train import _examples, _shards


class Metrics(NamedTuple):
  """Means over a data set.

  Attributes:
    loss: cross-entropy in nats, ``[]``.
    accuracy: fraction of labels with the largest logit, ``[]``.
  """

  loss: types.Array
  accuracy: types.Array


def evaluate(
  apply_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  data: tuple[types.Tree, types.Array],
  *,
  batch_size: int,
) -> Metrics:
  """Returns the mean loss and accuracy of a classifier.

  Args:
    apply_fn: maps (params, inputs) to logits ``[B, classes]``, or
      ``[B, S, classes]`` where there is one label for each of S tokens.
    params: its parameters.
    data: (inputs, labels): inputs have leaves ``[N, ...]``, labels are
      integers ``[N]`` or ``[N, S]``.
    batch_size: examples in memory at once; the last batch may be smaller, and
      all examples have equal weight. On a mesh, examples may be sharded over
      their first axis, by ``mesh.shard(data, jax.P('data'), m)``: then each
      device has an equal part of a batch, and none is moved.

  Returns:
    The means over all N (times S) labels.

  Raises:
    ValueError: as ``average`` does.

  Example:
    >>> apply_fn = lambda w, x: x * w
    >>> data = jnp.eye(3), jnp.array([0, 1, 0])
    >>> metrics = evaluate(apply_fn, jnp.ones((1, 3)), data, batch_size=2)
    >>> print(f'{metrics.accuracy:.3f}')
    0.667
  """
  classify = jax.tree_util.Partial(_classify, tree.partial(apply_fn))
  return _checked_average(classify, params, data, batch_size, 'evaluate')


def _classify(
  apply_fn: Callable[[types.Params, Any], types.Array],
  params: types.Params,
  batch: tuple[types.Tree, types.Array],
) -> Metrics:
  """Returns the loss and the correctness of each label of a batch."""
  inputs, labels = batch
  logits = apply_fn(params, inputs)
  losses = batches_lib.cross_entropy(logits, labels, name='evaluate')
  predictions = jnp.argmax(logits, -1).astype(jnp.int32)
  correct = predictions == jnp.asarray(labels, jnp.int32)
  return Metrics(losses, jnp.asarray(correct, losses.dtype))


def average(
  metric_fn: Callable[..., types.Tree],
  params: types.Params,
  data: types.Tree,
  *,
  batch_size: int,
) -> types.Tree:
  """Returns the mean of any per-example metrics, in batches.

  Args:
    metric_fn: maps (params, batch) to a pytree of leaves ``[B, ...]``; a
      ``jax.tree_util.Partial`` may bind further arrays before them.
    params: first operand of ``metric_fn``.
    data: examples, every leaf ``[N, ...]``.
    batch_size: examples in memory at once; the last batch may be smaller.

  Returns:
    The pytree of means over all axes, each leaf ``[]``, float32 or wider.

  Raises:
    ValueError: if there are no examples, if leaves differ in length, or if
      ``batch_size`` is less than 1.
  """
  metric_fn = tree.partial(metric_fn)
  return _checked_average(metric_fn, params, data, batch_size, 'average')


def _checked_average(
  metric_fn: Callable[..., types.Tree],
  params: types.Params,
  data: types.Tree,
  batch_size: int,
  caller: str,
) -> types.Tree:
  """Checks the arguments for a public function, then averages."""
  if not _examples.count(data, batch_size, caller=caller):
    raise ValueError(f'{caller}: data has no examples to average over')
  tree.check_not_narrowed(caller, params)
  split = _shards.split(data, caller=caller)
  return _average(metric_fn, params, data, batch_size, split)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _average(
  metric_fn: Callable[..., types.Tree],
  params: types.Params,
  data: types.Tree,
  batch_size: int,
  split: _shards.Split,
) -> types.Tree:
  """Sums whole batches in a scan, then the remainder."""
  # Each of D devices has N / D consecutive examples, and a batch has equally
  # many of each device, so that no example is moved.
  count, shards = len(jax.tree.leaves(data)[0]), split.shards
  batch_size = max(batch_size // shards, 1)
  whole, rest = divmod(count // shards, batch_size)

  def take(x: types.Array, first: types.ArrayLike, size: int) -> types.Array:
    if shards == 1:
      return jax.lax.dynamic_slice_in_dim(x, first, size)
    by_device = _shards.rows(x.reshape(shards, -1, *x.shape[1:]), split)
    found = jax.lax.dynamic_slice_in_dim(by_device, first, size, 1)
    return _shards.rows(found.reshape(-1, *x.shape[1:]), split)

  def sums(first: types.ArrayLike, size: int) -> types.Tree:
    # Sums over examples of means over the other axes. The remainder is a batch
    # of its own size, so all examples have weight 1 / count.
    batch = jax.tree.map(lambda x: take(x, first, size), data)
    return jax.tree.map(
      lambda x: jnp.mean(tree.widen(x)[0]) * (size * shards),
      metric_fn(params, batch),
    )

  totals = []
  if whole:
    starts = jnp.arange(whole) * batch_size
    parts = jax.lax.map(lambda first: sums(first, batch_size), starts)
    totals.append(jax.tree.map(lambda x: jnp.sum(x, 0), parts))
  if rest:
    totals.append(sums(whole * batch_size, rest))
  return jax.tree.map(lambda *parts: sum(parts) / count, *totals)
