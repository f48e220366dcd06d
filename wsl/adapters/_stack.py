"""Stacks of low-rank task vectors."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsl import deltas, tree, types

_IS_FACTORS = lambda x: isinstance(x, deltas.Factors)


def stack(loras: Sequence[types.Tree]) -> types.Deltas:
  r"""Stacks T low-rank task vectors, for merges that keep them factored.

  .. math:: A_t \in R^{r \times n}, \quad B_t \in R^{m \times r}, \qquad
    r = \max_t r_t

  Lower ranks are filled with zeros, which changes no product. Leaves of
  different dtypes are stacked in float32 or wider.

  Args:
    loras: T trees, whose leaves are ``Factors`` or arrays, alike in structure.

  Returns:
    One tree of ``Factors`` with a ``[T, r, in]``, b ``[T, out, r]`` and scale
    ``[T]``, for ``merge.knots``, ``merge.rmm`` and ``merge.materialize``; other
    leaves are arrays ``[T, ...]``.

  Raises:
    ValueError: if there are none, or two differ in more than ranks and scales,
      naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(0,), columns=(1,))
    >>> one = lambda r: adapters.Factors(
    ...   jnp.ones((r, 3)), jnp.ones((2, r)), 0.5, (3, 2), view
    ... )
    >>> both = stack([{'w': one(1)}, {'w': one(4)}])['w']
    >>> both.a.shape, both.b.shape, both.scale.tolist()
    ((2, 4, 3), (2, 2, 4), [0.5, 0.5])
  """
  if not isinstance(loras, Sequence):
    raise ValueError(
      f'adapters.stack: got a {type(loras).__name__}, expected a list of LoRAs'
    )
  if not loras:
    raise ValueError('adapters.stack: no LoRAs given, at least one is needed')
  named = [tree.named(x, is_leaf=_IS_FACTORS) for x in loras]
  for t, other in enumerate(named):
    if set(other) != set(named[0]):
      name = min(set(other) ^ set(named[0]))
      raise ValueError(
        f"adapters.stack: leaf '{name}' is in only one of LoRAs 0 and {t}: "
        'leave it out, or give the other one zeros'
      )
  leaves = {
    name: _stack_leaf(name, [x[name] for x in named]) for name in named[0]
  }
  each = iter(leaves.values())
  return jax.tree.map(lambda _: next(each), loras[0], is_leaf=_IS_FACTORS)


def _stack_leaf(name: str, leaves: Sequence[Any]) -> Any:
  """Stacks the arrays, or the factors, of one leaf."""
  first = leaves[0]
  for t, leaf in enumerate(leaves):
    if _kind(leaf) != _kind(first):
      raise ValueError(
        f"adapters.stack: leaf '{name}' of LoRA {t} is {_kind(leaf)}, of LoRA "
        f'0 {_kind(first)}: stack LoRAs of one model'
      )
  if not isinstance(first, deltas.Factors):
    return tree.apply_kernel(_padded, *leaves)
  for leaf in leaves:
    deltas.check_shapes('adapters.stack', name, leaf)
  rank = max(x.rank for x in leaves)
  dtype = tree.wide_dtype(*(x.a for x in leaves))
  of_a = {'rank': tree.Static(rank), 'axis': tree.Static(-2)}
  of_b = of_a | {'axis': tree.Static(-1)}
  return dataclasses.replace(
    first,
    a=tree.apply_kernel(_padded, *(x.a for x in leaves), **of_a),
    b=tree.apply_kernel(_padded, *(x.b for x in leaves), **of_b),
    scale=tree.apply_kernel(
      _scales, *(x.scale for x in leaves), dtype=tree.Static(dtype)
    ),
  )


def _padded(*leaves: types.Array, rank: int = 0, axis: int = 0) -> types.Array:
  """Stacks factors, each with zeros up to the rank on an axis."""

  def pad(x: types.Array) -> types.Array:
    if not rank:
      return x
    width = [(0, 0)] * x.ndim
    width[axis] = (0, rank - x.shape[axis])
    return jnp.pad(x, width)

  same = len({x.dtype for x in leaves}) == 1
  dtype = leaves[0].dtype if same else tree.wide_dtype(*leaves)
  return jnp.stack([pad(x).astype(dtype) for x in leaves])


def _scales(*scales: types.Scalar, dtype: jnp.dtype) -> types.Array:
  """Stacks the scales of T LoRAs, ``[T]``."""
  return jnp.stack([jnp.asarray(x).astype(dtype) for x in scales])


def _kind(leaf: Any) -> str:
  """Describes what two leaves must have in common."""
  if not isinstance(leaf, deltas.Factors):
    return f'an array of shape {tuple(leaf.shape)}'
  return f'factors of shape {leaf.shape}, {leaf.view}'
