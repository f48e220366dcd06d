"""Errors of merges on each task, for the points of a search."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._shared import suite_accuracy, suites
from wsl import data, merge, types

BATCH = 10  # points of one compiled call; others are padded


class Models(NamedTuple):
  """One seed's base, task vectors and heads of a group of tasks.

  Attributes:
    base: the encoder.
    stack: task vectors, ``[T, ...]``.
    heads: ``[T, ...]``, not merged.
    validation: images and labels ``[T, N, ...]``, of which searches see errors.
    test: for the tables.
  """

  base: types.Params
  stack: types.Deltas
  heads: types.Params
  validation: data.Split
  test: data.Split


def weighted_sum(stack: types.Deltas, point: types.Array) -> types.Delta:
  """Merges by a coefficient for each expert, ``[T]``."""
  return merge.sum(stack, weights=point)


def dare_ties(stack: types.Deltas, point: types.Array) -> types.Delta:
  """Merges by a density and a weight for each expert, ``[2 T]``."""
  density, weights = point[::2], point[1::2]
  # The masks are the same for all points, so that an error is a function.
  kept = merge.dare(stack, rate=1 - density, key=jax.random.key(0))
  return merge.ties(kept, density=1.0, reduce='sum', weights=weights)


def errors(
  suite: suites.Suite,
  models: Models,
  merge_fn: Callable[..., types.Delta],
  points: np.ndarray,
  split: str = 'validation',
) -> np.ndarray:
  """Returns the share of wrong answers of merges, by point and task.

  Args:
    suite: tasks and model.
    models: of one seed and group.
    merge_fn: maps (task vectors, point) to a merged task vector.
    points: ``[B, n]``.
    split: 'validation' or 'test'.

  Returns:
    Errors ``[B, T]``.
  """
  fn = functools.partial(
    _accuracies, suite.classify, suite.config.evaluation.batch_size, merge_fn
  )
  images = getattr(models, split)
  count = len(points)
  padded = np.resize(points, (-(-count // BATCH) * BATCH, points.shape[1]))
  found = [
    fn(models[:3], images, jnp.asarray(x, jnp.float32))
    for x in padded.reshape(-1, BATCH, points.shape[1])
  ]
  return 1 - np.concatenate(found).astype(np.float64)[:count]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _accuracies(
  classify: Callable[..., types.Array],
  batch_size: int,
  merge_fn: Callable[..., types.Delta],
  models: tuple[types.Params, types.Deltas, types.Params],
  split: data.Split,
  points: types.Array,
) -> types.Array:
  """Returns accuracies ``[B, T]``, one point after another."""
  base, stack, heads = models

  def of_point(point: types.Array) -> types.Array:
    merged = (base, merge_fn(stack, point), heads)
    one = jnp.ones((), point.dtype)
    return suite_accuracy.of_seed(classify, batch_size, merged, split, one)

  return jax.lax.map(of_point, points)


def pick(models: Any, suite: suites.Suite, seed: int, tasks: Any) -> Models:
  """Returns the models and images of one seed and a group of tasks.

  Args:
    models: base ``[S, ...]``, task vectors and heads ``[S, T, ...]``.
    suite: with the images of all tasks.
    seed: the position of the seed.
    tasks: positions of the tasks.
  """
  base, stack, heads = models
  tasks = np.asarray(tasks)
  own = lambda x: jax.tree.map(lambda x: x[seed, tasks], x)
  images = [
    jax.tree.map(lambda x: jnp.asarray(x[tasks]), split)
    for split in (suite.tasks.validation, suite.tasks.test)
  ]
  return Models(
    jax.tree.map(lambda x: x[seed], base), own(stack), own(heads), *images
  )
