"""CAT: weighted sums of LoRAs by concatenation of their factors."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _checks, _linear, _stack
from wsl.merge._spectral import low_rank


def cat(deltas: types.Deltas, *, weights: Any) -> types.Delta:
  r"""Sums LoRAs with weights, exactly, as a LoRA of rank T r.

  .. math:: \tau = \sum_{t=1}^{T} w_t s_t B_t A_t = B A, \qquad
    B = [w_1 s_1 B_1 \dots w_T s_T B_T], \quad
    A = [A_1^\top \dots A_T^\top]^\top

  Sums of A and of B separately, such as those of the ``linear`` type of PEFT,
  have products of different LoRAs.

  Args:
    deltas: ``adapters.stack`` of T LoRAs; leaves that are arrays are ``[T,
      ...]``.
    weights: w, ``[T]`` for all leaves, or a tree with ``[T]`` for each leaf.
      The paper trains a weight for each LoRA and layer on a few examples of the
      target task, with all else fixed: the sum is differentiable in them.

  Returns:
    A tree of ``deltas.Factors`` with scale 1; weighted sums of arrays.

  Raises:
    ValueError: if there is not one finite weight for each LoRA.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(0,), columns=(1,))
    >>> one = adapters.Factors(jnp.ones((1, 2)), jnp.ones((1, 1)), 0.5, (2, 1),
    ...                        view)
    >>> both = cat(adapters.stack([{'w': one}, {'w': one}]), weights=[1, 3])
    >>> both['w'].a.shape, adapters.dense(both['w']).tolist()
    ((2, 2), [[2.0], [2.0]])

  Reference:
    Prabhakar et al., "LoRA Soups: Merging LoRAs for Practical Skill Composition
    Tasks", 2024, arXiv:2410.13025; PEFT, combination type ``cat``.

  Differs from the code of PEFT in the factor that carries weights and scales, A
  there and B here; the product is the same.
  """
  models = _stack.count('cat', deltas)
  named = tree.named(deltas, is_leaf=low_rank.is_factors)
  one = {k: x.b if low_rank.is_factors(x) else x for k, x in named.items()}
  values = _stack.per_leaf('cat: weights', weights, one)
  each = {k: _checks.weights('cat', w, models) for k, w in values.items()}

  def join(x: Any, w: Any) -> Any:
    if not low_rank.is_factors(x):
      return tree.apply_kernel(_linear.weighted_sum, x, weights=w)
    b = tree.apply_kernel(_joined_b, x.b, x.scale, weights=w)
    a = tree.apply_kernel(_joined_a, x.a)
    return dataclasses.replace(x, a=a, b=b, scale=1.0)

  leaves = iter([join(x, each[name]) for name, x in named.items()])
  is_leaf = low_rank.is_factors
  return jax.tree.map(lambda _: next(leaves), deltas, is_leaf=is_leaf)


def _joined_a(a: types.Array) -> types.Array:
  """Joins A ``[T, ..., r, in]`` along the rank."""
  a = jnp.moveaxis(a, 0, -3)
  return a.reshape(*a.shape[:-3], -1, a.shape[-1])


def _joined_b(
  b: types.Array, scale: types.Array, *, weights: types.Array
) -> types.Array:
  """Joins w s B of ``[T, ..., out, r]`` along the rank."""
  wide = _stack.weigh(b, weights)
  wide = wide * _stack.expand_rank(scale.astype(wide.dtype), wide)
  wide = jnp.moveaxis(wide, 0, -2)
  return wide.reshape(*wide.shape[:-2], -1).astype(b.dtype)
