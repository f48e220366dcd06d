"""Sums and weighted means of task vectors: the form of most methods."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _checks, _factored, _normal_equations, _stack
from wsl.merge._spectral import spread


def sum(deltas: types.Deltas, *, weights: Any = None) -> types.Delta:
  r"""Sums task vectors: task arithmetic, with the coefficient in ``apply``.

  .. math:: \tau = \sum_{t=1}^{T} w_t \tau_t

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]`` or in factors.
    weights: w, one number for each model, of any sign; 1 by default.

  Returns:
    The merged task vector, every leaf ``[...]``. A leaf in factors of rank r is
    exact as factors of rank T r, as in ``cat``; ``adapters.compress`` finds the
    least rank.

  Raises:
    ValueError: if there is not one weight for each model.

  Example:
    >>> import jax.numpy as jnp
    >>> sum({'w': jnp.asarray([[1.0, 2.0], [3.0, -2.0]])})['w'].tolist()
    [4.0, 0.0]

  Reference:
    Ilharco et al., "Editing Models with Task Arithmetic", 2023,
    arXiv:2212.04089.

  Differs from the official code where a model lacks a leaf: that code leaves it
  out, ``deltas.stack`` refuses it or follows ``unmatched=``.
  """
  models = _stack.count('sum', deltas)
  if weights is None:
    ones: Any = np.ones(models)
    return _factored.linear(deltas, lambda x: tree.map(_sum, x), ones)
  weights = _checks.weights('sum', weights, models)
  weigh = lambda x: tree.map(weighted_sum, x, weights=weights)
  return _factored.linear(deltas, weigh, weights)


def mean(deltas: types.Deltas) -> types.Delta:
  r"""Averages task vectors: the model soup, if applied with coefficient 1.

  .. math:: \tau = \tfrac{1}{T} \sum_{t=1}^{T} \tau_t

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]`` or in factors.

  Returns:
    The merged task vector, every leaf ``[...]``, or in factors as by ``sum``.

  Example:
    >>> import jax.numpy as jnp
    >>> mean({'w': jnp.asarray([[1.0, 2.0], [3.0, -2.0]])})['w'].tolist()
    [2.0, 0.0]

  Reference:
    Wortsman et al., "Model soups: averaging weights of multiple fine-tuned
    models improves accuracy without increasing inference time", 2022,
    arXiv:2203.05482.

  Differs from the official code, which averages integer buffers too.
  """
  models = _stack.count('mean', deltas)
  equal: Any = np.full(models, 1 / models)
  return _factored.linear(deltas, lambda x: tree.map(mean_leaf, x), equal)


def weighted_mean(deltas: types.Deltas, weights: Any) -> types.Delta:
  r"""Averages task vectors with scalar, entrywise or matrix weights.

  .. math:: \tau = \Big(\sum_t W_t\Big)^{-1} \sum_t W_t \tau_t

  Equal weights give the mean, agreement masks TIES, Fisher diagonals Fisher
  merging, and Gram matrices RegMean. The normalised weights sum to one, so
  averaging task vectors and averaging models give the same model.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]`` or in factors.
    weights: ``[T]`` for all leaves, or a tree with one value for each leaf of
      ``deltas``: ``[T]`` (a weight for each model), ``[T, ...]`` (for each
      entry), a ``types.Gram`` with ``matrix [T, groups, d, d]`` (W_t multiplies
      the input axes), or ``None`` (equal weights).

  Returns:
    The merged task vector, every leaf ``[...]``. Entries whose weights sum to
    zero are zero: the base's value stays. An input that is zero on the diagonal
    of every Gram matrix takes equal weights. A leaf in factors is merged as by
    ``sum`` if its weights are ``[T]``, and is an array otherwise.

  Raises:
    ValueError: if a weight does not fit its leaf, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> deltas = {'w': jnp.asarray([[1.0, 2.0], [3.0, -2.0]])}
    >>> weighted_mean(deltas, jnp.asarray([3.0, 1.0]))['w'].tolist()
    [1.5, 1.0]

  Reference:
    Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", 2021,
    arXiv:2111.09832; Jin et al., "Dataless Knowledge Fusion by Merging Weights
    of Language Models", 2022, arXiv:2212.09849.

  No official code: ``fisher`` and ``regmean`` say how theirs differ.
  """
  models = _stack.count('weighted_mean', deltas)
  named = deltas_lib.placeholders(deltas)
  weights = _stack.per_leaf('weighted_mean: the weights', weights, named)

  def merge(name: str, x: Any, weight: Any) -> Any:
    if deltas_lib.is_factors(x):
      if weight is None:
        weight = np.ones(models)
      if not isinstance(weight, types.Gram) and np.shape(weight) == (models,):
        return _factored.join(x, _shares(weight))
      x = deltas_lib.dense(x)
    if weight is None:
      return tree.apply_kernel(mean_leaf, x)
    if isinstance(weight, types.Gram):
      check_gram('weighted_mean', name, x, weight)
      axes = tree.Static(weight.axes)
      where = tree.Static(spread.spec_of(x))
      return tree.apply_kernel(
        _normal_equations.matrix_weighted,
        x,
        weight.matrix,
        axes=axes,
        spec=where,
      )
    if np.shape(weight) not in (x.shape, x.shape[:1]):
      raise ValueError(
        f"weighted_mean: the weight of leaf '{name}' has shape "
        f'{np.shape(weight)}, expected {x.shape[:1]} or {x.shape}'
      )
    return tree.apply_kernel(_weighted, x, weight)

  is_leaf = deltas_lib.is_factors
  return tree.map_named(merge, deltas, weights, is_leaf=is_leaf)


def _shares(weight: Any) -> Any:
  """Divides weights ``[T]`` by their sum; zeros if that is zero."""
  xp: Any = jnp if isinstance(weight, jax.Array) else np
  weight = weight.astype(tree.wide_dtype(weight))
  total = weight.sum()
  return weight / xp.where(total == 0, xp.full_like(total, xp.inf), total)


def _sum(x: types.Array) -> types.Array:
  """Sums over models in float32 or wider."""
  return _stack.sum_models(_stack.map_models(tree.wide, x)).astype(x.dtype)


def weigh(function: str, deltas: types.Deltas, weights: Any) -> types.Deltas:
  """Multiplies each model by its weight.

  Raises:
    ValueError: if there is not one weight for each model.
  """
  models = _stack.count(function, deltas)
  weights = _checks.weights(function, weights, models)
  return tree.map(_weighed, deltas, weights=weights)


def _weighed(x: types.Array, *, weights: types.Array) -> types.Array:
  """Multiplies the models of a leaf by ``[T]``."""
  return _stack.weigh(x, weights).astype(x.dtype)


def weighted_sum(x: types.Array, *, weights: types.Array) -> types.Array:
  """Sums over models by weights ``[T]`` in float32 or wider."""
  return _stack.sum_models(_stack.weigh(x, weights)).astype(x.dtype)


def mean_leaf(x: types.Array) -> types.Array:
  """Averages ``[T, ...] -> [...]`` over models, in float32 or wider."""
  return (_stack.sum_models(_stack.map_models(tree.wide, x)) / len(x)).astype(
    x.dtype
  )


def _weighted(x: types.Array, weight: types.Array) -> types.Array:
  """Averages by weights ``[T]`` or ``[T, ...]``; 0 where they sum to 0."""
  wide = tree.wide(x)
  weight = _stack.expand_rank(weight.astype(wide.real.dtype), x)
  total, weighted = jax.lax.platform_dependent(
    weight, wide, cpu=_sums_in_turn, default=_sums
  )
  return tree.safe_divide(weighted, total).astype(x.dtype)


def _sums(
  weight: types.Array, x: types.Array
) -> tuple[types.Array, types.Array]:
  """Sums weights, and weighted entries, over models."""
  # One kernel on a GPU. There XLA computes the unrolled sums by two, and reads
  # the weights twice.
  return jnp.sum(weight, 0), jnp.sum(weight.astype(x.dtype) * x, 0)


def _sums_in_turn(
  weight: types.Array, x: types.Array
) -> tuple[types.Array, types.Array]:
  """Sums weights, and weighted entries, model by model."""
  weigh = lambda w, x: w.astype(x.dtype) * x
  weighted = _stack.map_models(weigh, weight, x)
  return _stack.sum_models(weight), _stack.sum_models(weighted)


def check_gram(
  function: str, name: str, x: types.Array, gram: types.Gram
) -> None:
  """Checks that Gram matrices fit the input axes of a leaf ``[T, ...]``.

  Raises:
    ValueError: naming the function, the leaf and the shape that it needs.
  """
  models, *shape = x.shape
  axes_fit = all(0 <= a < len(shape) for a in gram.axes)
  d = int(np.prod([shape[a] for a in gram.axes])) if axes_fit else 0
  outputs = int(np.prod(shape)) // max(d, 1)
  found = tuple(gram.matrix.shape)
  fits = axes_fit and len(found) == 4 and not outputs % max(found[1], 1)
  if not fits or (found[0], *found[2:]) != (models, d, d):
    raise ValueError(
      f"{function}: leaf '{name}' of shape {x.shape} with the input axes "
      f'{gram.axes} needs Gram matrices [{models}, groups, {d}, {d}], found '
      f'{found}: stack one for each model by tree.stack'
    )
