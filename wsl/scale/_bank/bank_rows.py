"""Rows: what a bank holds of one leaf, vector by vector."""

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
  r"""A task vector's leaf as two factors, ``tensordot(left, right, 1)``.

  In a model that is given to ``bank`` a leaf may be of this kind: it stands for
  the base's leaf plus the product. In a bank both have a leading axis of T.

  Attributes:
    left: ``[..., r]``, the leading axes of the leaf (for a Flax dense kernel
      ``[in, out]``: ``[in, r]``, often called A).
    right: ``[r, ...]``, its other axes (``[r, out]``, often called B; fold the
      adapter's scale into either).
  """

  left: types.Array
  right: types.Array


def present(leaf: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
  """Returns the vectors that have a leaf kept as a tuple, and their rows."""
  at = tuple(i for i, row in enumerate(leaf) if row is not None)
  return at, tuple(leaf[i] for i in at)


def each(leaf: Any) -> Iterator[tuple[int, Any]]:
  """Yields (i, row) of the vectors that have a leaf, reading it if need be."""
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
  """Returns the rows at some places, or None if no vector there has one."""
  if isinstance(leaf, tuple):
    rows = tuple(leaf[i] for i in index)
    return None if all(row is None for row in rows) else rows
  at = np.asarray(index)
  return jax.tree.map(lambda x: tree.apply_kernel(_some, x, index=at), leaf)


def only(leaf: Any, chosen: Sequence[int], count: int) -> tuple[Any, ...]:
  """Keeps some of ``count`` rows; the others become None."""
  if isinstance(leaf, tuple):
    row = lambda i: leaf[i]
  else:
    row = lambda i: jax.tree.map(
      lambda x: tree.apply_kernel(_row, x, index=i), leaf
    )
  return tuple(row(i) if i in chosen else None for i in range(count))


def _some(x: types.Array, *, index: types.Array) -> types.Array:
  return jnp.take(x, index, axis=0)


def _row(x: types.Array, *, index: types.Array) -> types.Array:
  return jax.lax.dynamic_index_in_dim(x, index, 0, keepdims=False)
