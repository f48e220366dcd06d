"""Masks of the entries that a task needs, learned from its examples."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._learned import stitch, tasks
from wsl.merge._sparse import trim


@deltas_lib.on_stacks
def localize(
  deltas: types.Deltas,
  *,
  base: types.Params,
  loss_fn: tasks.Loss,
  batches: Any,
  density: Any,
  steps: int,
  rate: Any,
  penalty: Any = 0.0,
  sharpness: float = 3.0,
  dialect: str = 'paper',
) -> types.Tree:
  r"""Learns the entries of each task vector that its task needs.

  .. math:: S_t = \operatorname*{argmin}_S \; \ell_t\big(\theta_0 + \sigma(S)
    \odot \tau_t\big) + \lambda \sum_p \sigma(S_p), \qquad m_t = 1[S_t > 0],

  by steps of gradient descent on all examples of the task, from S = b at the
  largest entries and -b elsewhere.

  Args:
    deltas: stacked task vectors in memory, every leaf ``[T, ...]``.
    base: the model that they are differences to.
    loss_fn: a hashable function ``(params, batch) -> loss``, the mean over the
      examples of the batch.
    batches: the labelled examples of each task, a pytree of ``[T, ...]``; heads
      of tasks may be part of it. The authors take 64 examples.
    density: the fraction of entries at which S starts at b, as in ``trim``.
    steps: steps of gradient descent, ``>= 0``; not traced.
    rate: the learning rate. Slopes of single entries are small: the authors
      take 1e7.
    penalty: lambda, ``>= 0``: the factor of the number of entries.
    sharpness: b, ``> 0``: sigma(3) is 0.95.
    dialect: ``'paper'`` descends the formula. ``'official'`` adds the slope of
      the penalty with the factor ``penalty`` alone, not ``rate * penalty``, and
      with the sign of S, so that S moves away from 0 on both sides; and it
      starts with one entry less, as in ``localize_and_stitch``.

  Returns:
    Masks of bools, a tree like ``deltas``, every leaf ``[T, ...]``.

  Raises:
    ValueError: if a hyperparameter is out of range, or ``batches`` has not one
      entry for each task.

  Example:
    >>> import jax.numpy as jnp
    >>> base, deltas = {'w': jnp.zeros(2)}, {'w': jnp.asarray([[1.0, 0.9]])}
    >>> loss = lambda params, x: jnp.sum((params['w'] - x) ** 2)
    >>> localize(deltas, base=base, loss_fn=loss, rate=9.0, steps=200,
    ...          batches=jnp.asarray([[0.0, 0.9]]), density=0.5)['w'].tolist()
    [[False, True]]

  Reference:
    He et al., "Localize-and-Stitch: Efficient Model Merging via Sparse Task
    Arithmetic", 2024, arXiv:2408.13656, section 4.

  Differs from the official code as ``dialect`` says. That code also adds up the
  mean losses of several batches, which is a rate as many times as large.
  """
  models = _stack.count('localize', deltas)
  given = {'rate': rate, 'penalty': penalty, 'sharpness': sharpness}
  for name, value in given.items():
    tree.check_scalars('localize', remedy='give one', **{name: value})
    _checks.at_least_zero('localize', name, value)
  _checks.integer('localize', 'steps', steps, least=0)
  batches = tasks.stacked('localize', batches, models)
  bounds = trim.thresholds(
    'localize',
    deltas,
    density=density,
    scope='global',
    dialect=dialect,
    dialects=stitch.EXTRA,
  )
  deltas = _stack.arrays('localize', deltas)
  base = _stack.arrays('localize: the base', base)
  bounds = _stack.arrays('localize', bounds)
  return _localize(
    base, deltas, bounds, batches, given, loss_fn, int(steps), dialect
  )


@functools.partial(jax.jit, static_argnums=(5, 6, 7))
def _localize(
  base: types.Params,
  deltas: types.Deltas,
  bounds: types.Tree,
  batches: Any,
  hyper: dict[str, Any],
  loss_fn: tasks.Loss,
  steps: int,
  dialect: str,
) -> types.Tree:
  """Learns the masks of one task after another, ``[T, ...]``."""

  def one(task: Any) -> types.Tree:
    delta, thresholds, batch = task

    def loss(scores: types.Tree) -> types.Array:
      part = jax.tree.map(_soft, delta, scores)
      return tasks.loss(loss_fn, base, part, batch)

    def step(_: Any, scores: types.Tree) -> types.Tree:
      slopes = jax.grad(loss)(scores)
      move = functools.partial(_moved, **hyper, dialect=dialect)
      return jax.tree.map(move, scores, slopes)

    scores = jax.tree.map(
      functools.partial(_start, sharpness=hyper['sharpness']), delta, thresholds
    )
    scores = jax.lax.fori_loop(0, steps, step, scores)
    return jax.tree.map(lambda s: s > 0, scores)

  # Thresholds are [1, T]: those of a task are [1].
  bounds = jax.tree.map(jnp.matrix_transpose, bounds)
  return jax.lax.map(one, (deltas, bounds, batches))


def _start(
  x: types.Array, bound: types.Array, *, sharpness: Any
) -> types.Array:
  """Returns b where the magnitude reaches a bound ``[1]``, -b elsewhere."""
  b = jnp.asarray(sharpness).astype(tree.wide_dtype(x))
  return jnp.where(tree.reaches(x, bound[0]), b, -b)


def _soft(x: types.Array, scores: types.Array) -> types.Array:
  """Multiplies a leaf by the sigmoid of scores."""
  return tree.wide(x) * jax.nn.sigmoid(scores)


def _moved(
  scores: types.Array,
  slope: types.Array,
  *,
  rate: Any,
  penalty: Any,
  sharpness: Any,
  dialect: str,
) -> types.Array:
  """Takes one step of gradient descent on loss and penalty."""
  del sharpness
  rate, penalty = (jnp.asarray(v).astype(scores.dtype) for v in (rate, penalty))
  share = jax.nn.sigmoid(scores)
  # The slope of sum sigma(S).
  grows = penalty * share * (1 - share)
  if dialect == 'official':
    return scores - rate * slope + jnp.where(scores > 0, grows, -grows)
  return scores - rate * (slope + grows)
