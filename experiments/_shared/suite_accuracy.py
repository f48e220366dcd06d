"""Accuracies of many merged models, in one compiled program."""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._shared import merge_methods, side_by_side, suites
from wsl import data, deltas, merge, train, types
from wsl import mesh as mesh_lib


class Experts(NamedTuple):
  """The T experts as a family of models.

  Attributes:
    stack: their task vectors, ``[..., T, ...]``.
  """

  stack: types.Deltas


def of_all(
  suite: suites.Suite,
  base: types.Params,
  merged: Any,
  heads: types.Params,
  split: data.Split,
  coefs: Sequence[float],
) -> np.ndarray:
  """Measures every coefficient, seed and task.

  On a mesh, coefficients and seeds are its candidates.

  Args:
    suite: tasks and model.
    base: encoders ``[S, ...]``.
    merged: deltas ``[S, ...]``, or families of T for each seed.
    heads: ``[S, T, ...]``.
    split: images and labels, ``[T, N, ...]``.
    coefs: L coefficients.

  Returns:
    Accuracies ``[L, S, T]``.
  """
  split = jax.tree.map(jnp.asarray, split)
  values = np.asarray(coefs, np.float32)
  batch_size = suite.config.evaluation.batch_size
  if suite.mesh is not None:
    seeds, tasks = suite.config.seeds, len(suite.tasks.names)
    fn = _of_candidate(suite.classify, batch_size)
    bound = jax.tree_util.Partial(fn, base, merged, heads, split)
    pairs = {
      'coef': np.repeat(values, seeds),
      'seed': np.tile(np.arange(seeds, dtype=np.int32), len(values)),
    }
    found = mesh_lib.map_candidates(bound, pairs, mesh=suite.mesh)
    return np.asarray(found, np.float64).reshape(-1, seeds, tasks)
  found = _of_all(
    suite.classify,
    suite.config.at_once,
    batch_size,
    base,
    merged,
    heads,
    split,
    jnp.asarray(values),
  )
  return np.asarray(found, np.float64)


# The same function for equal arguments: its program is compiled once.
@functools.lru_cache(maxsize=8)
def _of_candidate(
  classify: Callable[..., types.Array], batch_size: int
) -> Callable[..., types.Array]:
  """Returns a function of stacks and one candidate: coefficient and seed."""

  def evaluate(
    base: types.Params,
    merged: Any,
    heads: types.Params,
    split: data.Split,
    candidate: dict[str, types.Array],
  ) -> types.Array:
    models = side_by_side.pick((base, merged, heads), candidate['seed'])
    return of_seed(classify, batch_size, models, split, candidate['coef'])

  return evaluate


def of_seed(
  classify: Callable[..., types.Array],
  batch_size: int,
  models: tuple[types.Params, Any, types.Params],
  split: data.Split,
  coef: types.Array,
) -> types.Array:
  """Returns the accuracy on each task of one seed, ``[T]``; it can be traced.

  Args:
    classify: maps ({'encoder', 'head'}, images) to logits.
    batch_size: images in memory at once.
    models: an encoder; a delta, or a family of T; and heads ``[T, ...]``.
    split: images and labels, ``[T, N, ...]``.
    coef: the coefficient of the delta.
  """
  base, merged, heads = models

  def logits(
    head: types.Params, encoder: types.Params, x: types.Array
  ) -> types.Array:
    return classify({'encoder': encoder, 'head': head}, x)

  def of_task(operands: Any) -> types.Array:
    task, head, own = operands
    encoder = deltas.apply(base, _member(merged, task), coef=coef)
    apply_fn = jax.tree_util.Partial(logits, head)
    return train.evaluate(
      apply_fn, encoder, own, batch_size=batch_size
    ).accuracy

  tasks = jnp.arange(split.y.shape[0])
  return jax.lax.map(of_task, (tasks, heads, tuple(split)))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _of_all(
  classify: Callable[..., types.Array],
  at_once: int,
  batch_size: int,
  base: types.Params,
  merged: Any,
  heads: types.Params,
  split: data.Split,
  coefs: types.Array,
) -> types.Array:
  """Returns accuracies ``[L, S, T]``, one coefficient and task at a time."""

  def of_one(operands: Any, coef: types.Array) -> types.Array:
    return of_seed(classify, batch_size, operands, split, coef)

  def of_coef(coef: types.Array) -> types.Array:
    fn = functools.partial(of_one, coef=coef)
    return jax.lax.map(fn, (base, merged, heads), batch_size=at_once)

  # Coefficients and tasks one by one, ``at_once`` seeds side by side: one
  # composed encoder per seed is in memory.
  return jax.lax.map(of_coef, coefs)


def _member(merged: Any, task: types.Array) -> types.Delta:
  """Returns the delta for one task: a family's member, or the one for all."""
  if isinstance(merged, Experts):
    return jax.tree.map(lambda x: x[task], merged.stack)
  if merge_methods.is_family(merged):
    return merge.materialize(merged, task)
  return merged
