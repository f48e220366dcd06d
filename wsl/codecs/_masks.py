"""TALL masks and EMR: families of masks, eight entries in a byte."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from wsl import merge, tree, types
from wsl.codecs import _bits, _packed


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('data',),
  meta_fields=('shape',),
)
@dataclasses.dataclass(frozen=True)
class Bits:
  """A leaf of bools ``[T, ...]``; ``masks`` makes it.

  Attributes:
    data: ``[T, ceil(n / 8)]``, uint8, n the entries of one model; the first
      entry is the most significant bit of the first byte.
    shape: the shape of the leaf, T included.
  """

  data: Any
  shape: tuple[int, ...]

  @property
  def size(self) -> int:
    """Returns the number of entries of one model."""
    return math.prod(self.shape[1:])


def masks(family: merge.TallMasks) -> _packed.Packed:
  r"""Packs the masks of T models into bits, with their shared task vector.

  .. math:: \hat\tau_t = \lambda_t \, m_t \odot \tau

  takes 1 bit an entry for each model, and once the bits of :math:`\tau`: for T
  models of P float32 weights (32 + T) P bits, in place of 32 T P.

  Args:
    family: of ``merge.tall_masks`` or ``merge.emr``, in memory or on demand.
      Store :math:`\tau` in 16 bits by ``family._replace(merged=tree.cast(
      family.merged, 'bfloat16'))``.

  Returns:
    The pack, on demand if the family is: ``codecs.save`` then computes one leaf
    at a time. ``codecs.decode`` returns the family, equal bit by bit, of which
    ``merge.materialize`` returns a model.

  Raises:
    ValueError: if a leaf of the masks is not bool, or ``family`` is no family
      of masks.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import codecs, merge, tree
    >>> deltas = {'w': jnp.asarray([[1.0, 2.0], [3.0, 0.0]])}
    >>> packed = codecs.masks(merge.tall_masks(deltas, threshold=1))
    >>> packed.leaves.masks['w'].data.tolist()
    [[64], [128]]
    >>> tree.read(merge.materialize(codecs.decode(packed), 0))['w'].tolist()
    [0.0, 2.0]

  Reference:
    Wang et al., "Localizing Task Information for Improved Model Merging and
    Compression", 2024, arXiv:2405.07813; Huang et al., "EMR-Merging:
    Tuning-Free High-Performance Model Merging", 2024, arXiv:2405.17461.

  Differs from the official code of TALL masks in packing each leaf by itself,
  where that code packs the concatenated leaves of a model.
  """
  if not isinstance(family, merge.TallMasks):
    raise ValueError(
      f'masks: got a {type(family).__name__}, expected a family of '
      'merge.tall_masks or merge.emr'
    )
  for name, leaf in tree.named(family.masks).items():
    if leaf.dtype != np.bool_:
      raise ValueError(f"masks: leaf '{name}' has dtype {leaf.dtype}, not bool")
  codec = 'tall_masks' if family.scales is None else 'emr'
  packed = jax.tree.map(
    lambda x: Bits(tree.apply_kernel(_pack, x), tuple(x.shape)), family.masks
  )
  return _packed.Packed(family._replace(masks=packed), codec)


def decode(leaf: Bits) -> Any:
  """Returns the bools of a leaf, on demand if its bytes are."""
  return tree.apply_kernel(_unpack, leaf.data, shape=tree.Static(leaf.shape))


def bound(leaf: Bits) -> float:
  """Returns the sum over models of the entropy of their masks, in bits."""
  data = np.asarray(tree.read(leaf.data))
  ones = np.bitwise_count(data).sum(-1, dtype=np.int64)
  return sum(_bits.entropy(np.asarray([n, leaf.size - n])) for n in ones)


def _pack(x: types.Array) -> types.Array:
  return _bits.pack(x.reshape(x.shape[0], -1))


def _unpack(data: types.Array, *, shape: tuple[int, ...]) -> types.Array:
  return _bits.unpack(data, math.prod(shape[1:])).reshape(shape)
