"""Model merging by competition and attraction in niches."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.search import _archive, _crossover, _points


def m2n2(
  score: Callable[[types.Params], types.Array],
  start: _archive.Archive,
  *,
  steps: int,
  exponent: float = 1.0,
  mutation: float = 0.0,
  attraction: bool = True,
  split: bool = True,
  mate: bool = True,
  key: types.PRNGKey,
) -> tuple[_archive.Archive, types.Array]:
  r"""Evolves an archive by competition, attraction and crossover (M2N2).

  Each step draws a parent A with probability :math:`\propto f_i`, a mate B with
  probability :math:`\propto g_i`, and a crossover with a random split and
  weight; the child replaces the model of the lowest fitness, itself included.

  .. math:: f_i = \sum_j F_{ij}, \qquad
    g_i = \sum_j \max(0, F_{ij} - F_{Aj})

  for the shares F of ``niche_shares``. Where all g are zero, B is drawn as A.

  Args:
    score: maps a model to its score on each example, ``[N]``, ``>= 0``; traced.
    start: the archive, of ``archive`` or of an earlier call.
    steps: the number of children, ``>= 1``; one evaluation each.
    exponent: a, ``>= 0``.
    mutation: the standard deviation of noise that is added to each child; 0.01
      in the paper's evolution from scratch, otherwise 0.
    attraction: whether mates complement each other; otherwise B is drawn as A.
    split: whether the weights are swapped after a random entry; otherwise all
      entries have one weight.
    mate: whether children have two parents; otherwise they are mutants of A.
    key: of all draws. Resume with another key.

  Returns:
    The archive, and the best mean score in it after each step, ``[steps]``.
    All is traced: ``vmap`` over keys makes independent runs.

  Raises:
    ValueError: if an argument is out of range, or ``score`` does not return the
      scores of N examples.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from wsl import search
    >>> score = lambda params: params['w'].clip(0, 1)  # two tasks
    >>> models = {'w': jnp.eye(2)}  # an expert of each
    >>> x = search.archive(models, jnp.eye(2), size=4)
    >>> x, best = m2n2(score, x, steps=40, key=jax.random.key(0))
    >>> bool(best[-1] > 0.7)  # 0.5 for an expert
    True

  Reference:
    Abrantes, Lange and Tang, "Competition and Attraction Improve Model Fusion",
    2025, arXiv:2508.16204.

  Differs from the official code in the mate where the first parent is best on
  every example (its probabilities are 0 / 0), and in the order of the entries.
  """
  steps = _points.check_count('m2n2', 'steps', steps, 1)
  tree.check_scalars('m2n2', exponent=exponent, mutation=mutation)
  for name, value in {'exponent': exponent, 'mutation': mutation}.items():
    if not tree.is_traced(value) and not 0 <= value < math.inf:
      raise ValueError(f'm2n2: {name}={value} is not a finite number >= 0')
  found = jax.eval_shape(score, jax.tree.map(lambda x: x[0], start.models))
  if found.shape != start.scores.shape[1:]:
    raise ValueError(
      f'm2n2: score returns shape {found.shape}, the archive has scores of '
      f'{start.scores.shape[1]} examples'
    )

  def step(
    now: _archive.Archive, key: types.PRNGKey
  ) -> tuple[_archive.Archive, types.Array]:
    parents, cross, noise = jax.random.split(key, 3)
    a, b = _parents(now.scores, parents, exponent, attraction=attraction)
    child = jax.tree.map(lambda x: x[a], now.models)
    if mate:
      other = jax.tree.map(lambda x: x[b], now.models)
      child = _cross(child, other, cross, split=split)
    child = _mutated(child, noise, mutation)
    now = _insert(now, child, score(child), exponent)
    return now, now.scores.mean(1).max()

  return jax.lax.scan(step, start, jax.random.split(key, steps))


def _parents(
  scores: types.Array, key: types.PRNGKey, exponent: Any, *, attraction: bool
) -> tuple[types.Array, types.Array]:
  """Draws the first parent by fitness, the second by what it adds."""
  shares = _archive.niche_shares(scores, exponent=exponent)
  first, second = jax.random.split(key)
  fitness = shares.sum(1)
  a = _draw(first, fitness)
  gain = (
    jnp.maximum(0, shares - shares[a][None]).sum(1) if attraction else fitness
  )
  b = _draw(second, jnp.where(gain.sum() > 0, gain, fitness))
  return a, b


def _draw(key: types.PRNGKey, weights: types.Array) -> types.Array:
  """Draws an index with probability proportional to its weight."""
  weights = jnp.where(weights.sum() > 0, weights, 1)
  return jax.random.categorical(key, jnp.log(weights))


def _cross(
  a: types.Params, b: types.Params, key: types.PRNGKey, *, split: bool
) -> types.Params:
  """Crosses two models with a random weight and, if asked, a random split."""
  size = sum(x.size for x in jax.tree.leaves(a))
  at, of = jax.random.split(key)
  where = jax.random.randint(at, (), 0, size) if split else size
  return _crossover.crossover(a, b, split=where, weight=jax.random.uniform(of))


def _mutated(
  params: types.Params, key: types.PRNGKey, deviation: Any
) -> types.Params:
  """Adds normal noise to every entry."""
  noisy = lambda name, x: (
    x
    + deviation * jax.random.normal(tree.name_key(key, name), x.shape, x.dtype)
  )
  return tree.map_named(noisy, params)


def _insert(
  now: _archive.Archive, child: types.Params, scores: types.Array, exponent: Any
) -> _archive.Archive:
  """Replaces the model of the lowest fitness, unless it is the child."""
  scores = scores.astype(now.scores.dtype)
  all_scores = jnp.concatenate([now.scores, scores[None]])
  fitness = _archive.niche_shares(all_scores, exponent=exponent).sum(1)
  worst = jnp.argmin(fitness)
  place = jnp.minimum(worst, len(now.scores) - 1)
  taken = worst < len(now.scores)

  def put(x: types.Array, new: types.Array) -> types.Array:
    return x.at[place].set(jnp.where(taken, new, x[place]))

  models = jax.tree.map(put, now.models, child)
  return _archive.Archive(models, put(now.scores, scores))
