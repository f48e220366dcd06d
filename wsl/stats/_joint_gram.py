"""Joint Gram matrices of several models' inputs on the same data."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stats import _gram
from wsl.stats._linear_maps import records, totals

_MODELS = 'models'


def joint_gram(
  apply_fn: Callable[[types.Params, Any], Any],
  models: Sequence[types.Params],
  batches: Iterable[Any],
) -> types.Tree:
  r"""Computes second moments of each linear map's inputs across models.

  .. math:: G = \frac{1}{n} \sum_{i=1}^{n} z_i z_i^\top, \qquad
    z_i = [x_i^{(1)}; \dots; x_i^{(T)}]

  where x^(t) is the map's input in model t, for the same example and position.
  The diagonal blocks are the models' own Gram matrices, the others the cross
  moments of their units.

  Args:
    apply_fn: a hashable function ``(params, inputs) -> anything``, without
      control flow that depends on values of the parameters.
    models: T models of the same tree, shapes and dtypes, in memory or on
      demand; leave out heads of different shapes, and let ``apply_fn`` return
      the features.
    batches: any iterable of ``inputs``, or of tuples ``(inputs, ...)``;
      inputs are an array ``[B, ...]`` or a pytree of them.

  Returns:
    A tree like a model, with a ``Gram`` at each leaf where ``gram`` has one,
    ``matrix [groups, T d, T d]`` and ``mean [groups, T d]``, ordered by model,
    and ``None`` elsewhere.

  Raises:
    ValueError: if the models differ in their leaves or shapes, or there are no
      batches.

  Example:
    >>> import jax.numpy as jnp
    >>> two = lambda p, x: (x * p['a'][None]) @ p['w']
    >>> a, b = ({'a': jnp.full(1, s), 'w': jnp.ones((1, 2))} for s in (1., 3.))
    >>> joint_gram(two, [a, b], [jnp.ones((5, 1))])['w'].matrix[0].tolist()
    [[1.0, 3.0], [3.0, 9.0]]

  Reference: the statistic of the least squares of Nasery et al., "PLeaS:
  Merging Models with Permutations and Least Squares", 2024, arXiv:2407.02447.
  """
  if not models:
    raise ValueError('joint_gram: no models given, at least one is needed')
  models = [
    tree.conform(f'joint_gram: model {i}', model, 'model 0', models[0])
    for i, model in enumerate(models)
  ]
  for model in models:
    tree.check_not_narrowed('joint_gram', model)
    reason = 'only moments of real maps are defined'
    tree.check_real('joint_gram', model, reason)
  stacked = tree.stack([tree.read(model) for model in models])
  of_batch = functools.partial(_batch_sums, apply_fn, stacked)
  total = totals.over_batches(
    of_batch, batches, add=_gram.add, name='joint_gram'
  )
  names = list(tree.named(models[0]))
  return jax.tree.unflatten(
    jax.tree.structure(models[0]), [_split(s, names) for s in total]
  )


@functools.partial(jax.jit, static_argnums=0)
def _batch_sums(
  apply_fn: Callable[..., Any], stacked: types.Params, inputs: Any
) -> list[_gram.Sum | None]:
  """Sums one batch, under a ``vmap`` over models that gathers their rows."""
  sums = functools.partial(_gram.sums, apply_fn, measure=_across)
  return jax.vmap(sums, (0, None), None, axis_name=_MODELS)(stacked, inputs)


def _across(inputs: types.Array, outputs: types.Array) -> types.Array:
  """Returns the sum of (z, 1) (z, 1)^T, ``[groups, T d + 1, T d + 1]``."""
  rows = jax.lax.all_gather(inputs, _MODELS)  # [T, groups, n, d]
  groups, n, d = inputs.shape
  rows = jnp.moveaxis(rows, 0, 2).reshape(groups, n, rows.shape[0] * d)
  # The products with a constant input are the sums of the others.
  constant = jnp.ones_like(rows[..., :1])
  return records.second_moment(jnp.concatenate([rows, constant], -1), outputs)


def _split(total: _gram.Sum | None, names: list[str]) -> types.Gram | None:
  """Returns the moments of z, and the means from the constant input."""
  found = _gram.mean(total)
  if total is None or found is None:
    return None
  return dataclasses.replace(
    found,
    matrix=found.matrix[..., :-1, :-1],
    mean=found.matrix[..., :-1, -1],
    bias='' if total.bias is None else names[total.bias],
  )
