"""A leaf as blocks of signs and magnitudes of low rank."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.codecs import _bits


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('signs', 'left', 'right', 'scale', 'weights', 'norms'),
  meta_fields=('shape', 'dtype', 'view'),
)
@dataclasses.dataclass(frozen=True)
class SignBlocks:
  """A leaf as a sum of n blocks of signs times magnitudes of rank k.

  Attributes:
    signs: ``[n, G, ceil(in out / 8)]``, uint8, 1 for entries >= 0.
    left: ``[n, G, in, k]``, float16.
    right: ``[n, G, k, out]``, float16.
    scale: a power of two, which multiplies the sum.
    weights: ``[G, in]``, by which the rows are divided; or None.
    norms: ``[n + 1]``, the norm of what the first blocks leave, of weighted
      rows.
    shape: the shape of the leaf.
    dtype: the name of its dtype.
    view: the leaf as matrices, of which rows are inputs.
  """

  signs: Any
  left: Any
  right: Any
  scale: Any
  weights: Any
  norms: Any
  shape: tuple[int, ...]
  dtype: str
  view: tree.Matrix

  @property
  def size(self) -> int:
    """Returns the number of entries."""
    return math.prod(self.shape)

  @property
  def blocks(self) -> int:
    """Returns n."""
    return int(self.signs.shape[0])


def decode(leaf: SignBlocks) -> Any:
  """Returns the sum of the blocks of a leaf, on demand if they are."""
  hyper = {name: getattr(leaf, name) for name in ('shape', 'view')}
  hyper['dtype'] = np.dtype(leaf.dtype)
  arrays = leaf.signs, leaf.left, leaf.right, leaf.scale
  weights = () if leaf.weights is None else (leaf.weights,)
  return tree.apply_kernel(
    _sum, *arrays, *weights, **{k: tree.Static(v) for k, v in hyper.items()}
  )


def bound(leaf: SignBlocks) -> float:
  """Returns the entropy of the signs, and the bits of all numbers."""
  signs = np.asarray(tree.read(leaf.signs))
  found = 0.0
  for block in signs.reshape(-1, signs.shape[-1]):
    size = leaf.size // signs.shape[1]
    ones = int(np.bitwise_count(block).sum(dtype=np.int64))
    found += _bits.entropy(np.asarray([ones, size - ones]))
  rest = jax.tree.leaves(dataclasses.replace(leaf, signs=None))
  return found + sum(8.0 * x.size * x.dtype.itemsize for x in rest)


def _sum(
  signs: types.Array,
  left: types.Array,
  right: types.Array,
  scale: types.Array,
  weights: types.Array | None = None,
  *,
  shape: tuple[int, ...],
  dtype: np.dtype,
  view: tree.Matrix,
) -> types.Array:
  """Returns the sum of the blocks in the layout of the leaf."""
  groups, m, n = view.sizes(shape)
  wide = tree.wide_dtype(dtype)

  def add(total: types.Array, block: Any) -> tuple[types.Array, None]:
    signs, u, v = block
    positive = _bits.unpack(signs, m * n).reshape(groups, m, n)
    magnitude = tree.matmul(u.astype(wide), v.astype(wide))
    return total + jnp.where(positive, magnitude, -magnitude), None

  total, _ = jax.lax.scan(
    add, jnp.zeros((groups, m, n), wide), (signs, left, right)
  )
  total = total * scale.astype(wide)
  if weights is not None:
    total = total / weights.astype(wide)[..., None]
  return view.join(total, shape).astype(dtype)
