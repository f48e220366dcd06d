"""Rows of a bank: one leaf of one task vector."""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LowRank:
  r"""A leaf of a task vector in factored form, ``tensordot(left, right, 1)``.

  As a leaf of a model passed to ``bank`` it denotes the base's leaf plus the
  product. In a bank both factors have a leading axis of T.

  Attributes:
    left: ``[..., r]``, the leading axes of the leaf (for a Flax dense kernel
      ``[in, out]``: ``[in, r]``, often called A).
    right: ``[r, ...]``, its other axes (``[r, out]``, often called B; fold the
      adapter's scale into either).
  """

  left: types.Array
  right: types.Array


def present(leaf: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
  """Returns the indices and the rows of a tuple that are not None."""
  at = tuple(i for i, row in enumerate(leaf) if row is not None)
  return at, tuple(leaf[i] for i in at)


def each(leaf: Any) -> Iterator[tuple[int, Any]]:
  """Yields (i, row) of every vector that has the leaf, read from its source."""
  if isinstance(leaf, tuple):
    for i, row in zip(*present(leaf)):
      yield i, tree.read(row)
  elif isinstance(leaf, LowRank):
    for i in range(len(leaf.left)):
      yield i, LowRank(leaf.left[i], leaf.right[i])
  else:
    leaf = tree.read(leaf)
    for i in range(len(leaf)):
      yield i, leaf[i]


def take(leaf: Any, index: Sequence[int]) -> Any:
  """Returns the rows at an index, or None if none of those vectors has one."""
  if isinstance(leaf, tuple):
    rows = tuple(leaf[i] for i in index)
    return None if all(row is None for row in rows) else rows
  at = np.asarray(index)
  return jax.tree.map(lambda x: tree.apply_kernel(_some, x, index=at), leaf)


def only(leaf: Any, chosen: Sequence[int], count: int) -> tuple[Any, ...]:
  """Keeps the chosen of ``count`` rows; the others become None."""
  if isinstance(leaf, tuple):
    row = lambda i: leaf[i]
  else:
    row = lambda i: jax.tree.map(
      lambda x: tree.apply_kernel(_row, x, index=i), leaf
    )
  return tuple(row(i) if i in chosen else None for i in range(count))


def _some(x: types.Array, *, index: types.Array) -> types.Array:
  """Gathers rows of a stack."""
  return jnp.take(x, index, axis=0)


def _row(x: types.Array, *, index: types.Array) -> types.Array:
  """Slices one row of a stack."""
  return jax.lax.dynamic_index_in_dim(x, index, 0, keepdims=False)
