"""Accuracies of many merged models, in one compiled program."""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._shared import merge_methods, suites
from wsl import data, deltas, merge, train, types


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
  found = _of_all(
    suite.classify,
    suite.config.at_once,
    suite.config.evaluation.batch_size,
    base,
    merged,
    heads,
    jax.tree.map(jnp.asarray, split),
    jnp.asarray(coefs, jnp.float32),
  )
  return np.asarray(found, np.float64)


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

  def logits(
    head: types.Params, encoder: types.Params, x: types.Array
  ) -> types.Array:
    return classify({'encoder': encoder, 'head': head}, x)

  def of_task(
    operands: Any, coef: types.Array, base: types.Params, merged: Any
  ) -> types.Array:
    task, head, own = operands
    encoder = deltas.apply(base, _member(merged, task), coef=coef)
    apply_fn = jax.tree_util.Partial(logits, head)
    return train.evaluate(
      apply_fn, encoder, own, batch_size=batch_size
    ).accuracy

  def of_seed(operands: Any, coef: types.Array) -> types.Array:
    base, merged, heads = operands
    fn = functools.partial(of_task, coef=coef, base=base, merged=merged)
    tasks = jnp.arange(split.y.shape[0])
    return jax.lax.map(fn, (tasks, heads, tuple(split)))

  def of_coef(coef: types.Array) -> types.Array:
    fn = functools.partial(of_seed, coef=coef)
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
