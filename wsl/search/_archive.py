"""An archive of models that compete for examples."""

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
  tree.check_not_narrowed('archive', models)
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
    F, ``[K, N]``, in float32 or wider.

  Raises:
    ValueError: if ``exponent`` is no number ``>= 0``.

  Example:
    >>> import jax.numpy as jnp
    >>> scores = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> niche_shares(scores).sum(1).tolist()
    [0.5, 0.5, 1.0]

  Reference:
    Abrantes, Lange and Tang, "Competition and Attraction Improve Model Fusion",
    2025, arXiv:2508.16204, section 3.
  """
  tree.check_scalars('niche_shares', exponent=exponent)
  if not tree.is_traced(exponent) and not exponent >= 0:
    raise ValueError(f'niche_shares: exponent={exponent}, expected >= 0')
  (scores,) = tree.widen(scores)
  total = scores.sum(0, keepdims=True)
  power = jnp.asarray(exponent).astype(scores.dtype)
  return scores / jnp.where(total == 0, 1, total) ** power
