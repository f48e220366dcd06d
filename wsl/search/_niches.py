"""An archive of models that compete for examples, and their crossovers."""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.search import _points


class Archive(NamedTuple):
  """Models and the score of each on each example.

  Attributes:
    models: K models, every leaf ``[K, ...]``.
    scores: ``[K, N]``, ``>= 0``, higher is better: 1 for a right answer.
  """

  models: types.Tree
  scores: types.Array


def archive(models: types.Tree, scores: types.Array, *, size: int) -> Archive:
  """Returns an archive of given models, with empty places for others.

  An empty place holds zeros with a score of zero, and is taken first.

  Args:
    models: M models, every leaf ``[M, ...]``, of float dtype.
    scores: of each on each example, ``[M, N]``, ``>= 0``.
    size: K, ``>= M``.

  Returns:
    An ``Archive`` of K places, in float32 or wider.

  Raises:
    ValueError: if leaves or scores differ in M, or size is below M.

  Example:
    >>> import jax.numpy as jnp
    >>> x = archive({'w': jnp.ones((2, 3))}, jnp.ones((2, 5)), size=4)
    >>> x.models['w'].shape, x.scores.shape
    ((4, 3), (4, 5))
  """
  scores = tree.wide(jnp.asarray(scores))
  if scores.ndim != 2:
    raise ValueError(f'archive: scores have shape {scores.shape}, not [M, N]')
  count = len(scores)
  for name, x in tree.named(models).items():
    if not tree.is_float(x) or jnp.iscomplexobj(x):
      raise ValueError(f"archive: leaf '{name}' is {x.dtype}, not real floats")
    if not x.ndim or len(x) != count:
      raise ValueError(
        f"archive: leaf '{name}' has shape {x.shape}, scores are of {count} "
        'models: stack the models, every leaf [M, ...]'
      )
  size = _points.check_count('archive', 'size', size, max(count, 2))

  def pad(x: Any) -> types.Array:
    x = tree.wide(jnp.asarray(x))
    return jnp.pad(x, [(0, size - count), *[(0, 0)] * (x.ndim - 1)])

  return Archive(jax.tree.map(pad, models), pad(scores))


def niche_shares(scores: types.Array, *, exponent: float = 1.0) -> types.Array:
  r"""Divides each example among the models that answer it.

  .. math:: F_{ij} = \frac{S_{ij}}{z_j^{\,a}}, \qquad z_j = \sum_i S_{ij}

  with 1 for a sum of zero. The fitness of a model is the sum of its shares: two
  equal models halve theirs, a specialist keeps its own.

  Args:
    scores: S, ``[K, N]``, ``>= 0``.
    exponent: a, ``>= 0``; 0 lets all models keep their whole score.

  Returns:
    F, ``[K, N]``.

  Example:
    >>> import jax.numpy as jnp
    >>> scores = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> niche_shares(scores).sum(1).tolist()
    [0.5, 0.5, 1.0]

  Reference:
    Abrantes, Lange and Tang, "Competition and Attraction Improve Model Fusion",
    2025, arXiv:2508.16204, section 3.
  """
  total = scores.sum(0, keepdims=True)
  return scores / jnp.where(total == 0, 1, total) ** exponent


def crossover(
  a: types.Params,
  b: types.Params,
  *,
  split: types.ArrayLike,
  weight: types.ArrayLike,
) -> types.Params:
  r"""Interpolates two models on a sphere, with swapped weights after a split.

  .. math:: \theta_p = \frac{\sin((1 - v_p)\,\omega)}{\sin \omega}\, a_p +
    \frac{\sin(v_p\,\omega)}{\sin \omega}\, b_p, \qquad
    v_p = w \text{ if } p < k \text{ else } 1 - w

  with the angle :math:`\omega` between the models as two vectors, and a line
  where its sine is at most 1e-6. p counts the entries leaf by leaf in the order
  of their names, numbers in names by value.

  Args:
    a: a model of d entries, leaves of real float dtype.
    b: a model of the same structure and shapes.
    split: k, from 0 to d; may be traced.
    weight: w, from 0 to 1; may be traced. 0 puts the first part of ``a`` before
      the last part of ``b``.

  Returns:
    A model, leaves in the dtypes of ``a``.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {'w': jnp.zeros(4)}, {'w': jnp.ones(4)}
    >>> crossover(a, b, split=1, weight=0.0)['w'].tolist()
    [0.0, 1.0, 1.0, 1.0]

  Reference:
    Abrantes, Lange and Tang, "Competition and Attraction Improve Model Fusion",
    2025, arXiv:2508.16204, section 3.
  """
  x, y = (jax.tree.map(tree.wide, z) for z in (a, b))
  inner = lambda x, y: sum(jax.tree.leaves(jax.tree.map(_inner, x, y)))
  cosine = inner(x, y) / jnp.sqrt(inner(x, x) * inner(y, y))
  omega = jnp.arccos(jnp.clip(jnp.where(jnp.isnan(cosine), 1, cosine), -1, 1))
  starts = _starts(a)

  def mix(name: str, x: Any, y: Any, like: Any) -> types.Array:
    at = starts[name] + jnp.arange(x.size).reshape(x.shape)
    v = jnp.where(at < split, weight, 1 - jnp.asarray(weight)).astype(x.dtype)
    curved = jnp.sin(omega) > 1e-6
    sine = jnp.where(curved, jnp.sin(omega), 1)
    of_a = jnp.where(curved, jnp.sin((1 - v) * omega) / sine, 1 - v)
    of_b = jnp.where(curved, jnp.sin(v * omega) / sine, v)
    return (of_a * x + of_b * y).astype(like.dtype)

  return tree.map_named(mix, x, y, a)


def m2n2(
  score: Callable[[types.Params], types.Array],
  start: Archive,
  *,
  steps: int,
  exponent: float = 1.0,
  mutation: float = 0.0,
  attraction: bool = True,
  split: bool = True,
  mate: bool = True,
  key: types.PRNGKey,
) -> tuple[Archive, types.Array]:
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
    >>> score = lambda params: params['w'].clip(0, 1)  # two tasks
    >>> models = {'w': jnp.eye(2)}  # an expert of each
    >>> x = archive(models, jnp.eye(2), size=4)
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
  for name, value in {'exponent': exponent, 'mutation': mutation}.items():
    if not tree.is_traced(value) and not 0 <= value < math.inf:
      raise ValueError(f'm2n2: {name}={value} is not a finite number >= 0')
  found = jax.eval_shape(score, jax.tree.map(lambda x: x[0], start.models))
  if found.shape != start.scores.shape[1:]:
    raise ValueError(
      f'm2n2: score returns shape {found.shape}, the archive has scores of '
      f'{start.scores.shape[1]} examples'
    )

  def step(now: Archive, key: types.PRNGKey) -> tuple[Archive, types.Array]:
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
  shares = niche_shares(scores, exponent=exponent)
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
  return crossover(a, b, split=where, weight=jax.random.uniform(of))


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
  now: Archive, child: types.Params, scores: types.Array, exponent: Any
) -> Archive:
  """Replaces the model of the lowest fitness, unless it is the child."""
  scores = scores.astype(now.scores.dtype)
  all_scores = jnp.concatenate([now.scores, scores[None]])
  fitness = niche_shares(all_scores, exponent=exponent).sum(1)
  worst = jnp.argmin(fitness)
  place = jnp.minimum(worst, len(now.scores) - 1)
  taken = worst < len(now.scores)

  def put(x: types.Array, new: types.Array) -> types.Array:
    return x.at[place].set(jnp.where(taken, new, x[place]))

  models = jax.tree.map(put, now.models, child)
  return Archive(models, put(now.scores, scores))


def _starts(params: types.Params) -> dict[str, int]:
  """Returns the position of the first entry of each leaf."""
  named = tree.named(params)
  starts, total = {}, 0
  for name in tree.in_order(named):
    starts[name] = total
    total += math.prod(named[name].shape)
  if total >= 2**31:
    raise ValueError(f'crossover: {total} entries do not fit in int32')
  return starts


def _inner(x: types.Array, y: types.Array) -> types.Array:
  return jnp.sum(x * y)
