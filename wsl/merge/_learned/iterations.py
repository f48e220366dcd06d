"""The iterations of Frank-Wolfe over a pool of task vectors, as one program."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _stack
from wsl.merge._learned import adam, tasks


class Choices(NamedTuple):
  """What chooses the program; hashable."""

  steps: int
  coef_steps: int
  form: str
  scope: str
  official: bool


class Problem(NamedTuple):
  """What the iterations read.

  Attributes:
    base: the model, leaves ``[...]``.
    pool: the task vectors that may be selected, leaves ``[P, ...]``.
    batches: of each task, ``[K, ...]``.
    loss: maps (task vector, batch) to a scalar.
    hyper: rate, scale and coef_rate, in the widest dtype of the pool.
    choices: see ``Choices``.
  """

  base: types.Params
  pool: types.Deltas
  batches: Any
  loss: Callable[[types.Delta, Any], types.Array]
  hyper: dict[str, types.Array]
  choices: Choices


@functools.partial(jax.jit, static_argnums=(5, 6))
def merge(
  base: types.Params,
  pool: types.Deltas,
  start: types.Delta | None,
  batches: Any,
  hyper: dict[str, types.Array],
  loss_fn: tasks.Loss,
  choices: Choices,
) -> types.Delta:
  """Returns the merged task vector after all iterations, in wide dtypes."""
  hard = choices.form == 'hard'
  if start is None:
    share = hyper['scale'] if choices.official else 1 / _count(pool)
    share = share if hard else 0.0
    total = jax.tree.map(_stack.sum_models, pool)
    start = jax.tree.map(
      lambda x: x * jnp.asarray(share).astype(x.dtype), total
    )
  if hard and choices.official:
    add = lambda x, y: jnp.concatenate([x, y[None]])
    pool = jax.tree.map(add, pool, start)
  loss = functools.partial(tasks.loss, loss_fn, base)
  problem = Problem(base, pool, batches, loss, hyper, choices)
  step = functools.partial(_hard if hard else _soft, problem)
  return jax.lax.fori_loop(0, choices.steps, step, start)


def _hard(problem: Problem, i: Any, merged: types.Delta) -> types.Delta:
  """Moves towards the expert that the mean slope of all tasks selects."""
  zero = jax.tree.map(jnp.zeros_like, merged)

  def add(total: types.Delta, batch: Any) -> tuple[types.Delta, None]:
    slope = jax.grad(problem.loss)(merged, batch)
    return jax.tree.map(jnp.add, total, slope), None

  slopes, _ = jax.lax.scan(add, zero, problem.batches)
  picks = jnp.argmin(_scores(problem, slopes), 1)
  size = problem.hyper['scale'] * _rate(problem, i)
  coefs = jnp.broadcast_to(size, (len(picks), 1))
  return _towards(merged, problem.pool, picks[:, None], coefs)


def _soft(problem: Problem, i: Any, merged: types.Delta) -> types.Delta:
  """Moves towards one expert for each task."""
  hyper, choices = problem.hyper, problem.choices

  def select(taken: types.Array, batch: Any) -> tuple[types.Array, types.Array]:
    scores = _scores(problem, jax.grad(problem.loss)(merged, batch))
    pick = jnp.argmin(jnp.where(taken, jnp.inf, scores), 1)
    return taken | (jnp.arange(taken.shape[1])[None] == pick[:, None]), pick

  leaves = len(jax.tree.leaves(merged))
  taken = jnp.zeros((leaves, _count(problem.pool)), bool)
  _, picks = jax.lax.scan(select, taken, problem.batches)
  picks = picks.T
  scale = hyper['scale']
  later = scale * _rate(problem, i)
  later = jnp.full_like(later, 1e-8) if choices.coef_steps else later
  size = jnp.where(i == 0, scale, later)
  coefs = jnp.broadcast_to(size, picks.shape)
  if choices.coef_steps:
    coefs = _learned(problem, merged, picks, coefs)
  return _towards(merged, problem.pool, picks, coefs)


def _learned(
  problem: Problem, merged: types.Delta, picks: types.Array, coefs: types.Array
) -> types.Array:
  """Returns coefficients ``[L, K]`` after steps of Adam on the mean loss."""

  def loss(coefs: types.Array) -> types.Array:
    moved = _towards(merged, problem.pool, picks, coefs)
    each = jax.lax.map(lambda b: problem.loss(moved, b), problem.batches)
    return jnp.mean(each)

  def step(i: Any, state: Any) -> Any:
    coefs, moments = state
    direction, moments = adam.step(jax.grad(loss)(coefs), moments, i)
    return coefs - problem.hyper['coef_rate'] * direction, moments

  state = coefs, adam.start(coefs)
  return jax.lax.fori_loop(0, problem.choices.coef_steps, step, state)[0]


def _rate(problem: Problem, i: Any) -> types.Array:
  """Returns gamma = 2 eta / (i + 2)."""
  rate = problem.hyper['rate']
  return 2 * rate / (i + 2).astype(rate.dtype)


def _towards(
  merged: types.Delta,
  pool: types.Deltas,
  picks: types.Array,
  coefs: types.Array,
) -> types.Delta:
  """Adds the differences to picked experts, ``[L, K]``, by coefficients."""

  def move(y: types.Array, x: types.Array, pick: Any, coef: Any) -> types.Array:
    differences = x[pick] - y[None]
    return y + _stack.sum_in_turn(_stack.weigh(differences, coef))

  leaves, treedef = jax.tree.flatten(merged)
  moved = map(move, leaves, jax.tree.leaves(pool), picks, coefs)
  return jax.tree.unflatten(treedef, moved)


def _scores(problem: Problem, slopes: types.Delta) -> types.Array:
  """Returns how each expert of the pool aligns with the slope, ``[L, P]``."""
  official = problem.choices.official
  at_base = tree.named(problem.base)

  def score(name: str, slope: types.Array, x: types.Array) -> types.Array:
    if official:
      x = x + tree.wide(at_base[name])[None].astype(x.dtype)
    found = tree.sum_entries(tree.inner(x, slope[None]))
    if not official:
      return found
    norms = tree.sum_entries(tree.square(x)) * jnp.sum(tree.square(slope))
    return tree.safe_divide(found, jnp.sqrt(norms))

  each = jax.tree.leaves(tree.map_named(score, slopes, problem.pool))
  wide = problem.hyper['rate'].dtype
  scores = jnp.stack([x.astype(wide) for x in each])
  if problem.choices.scope == 'leaf':
    return scores
  return jnp.broadcast_to(jnp.sum(scores, 0, keepdims=True), scores.shape)


def _count(pool: types.Deltas) -> int:
  """Returns P, the number of experts in a pool."""
  return int(jax.tree.leaves(pool)[0].shape[0])
