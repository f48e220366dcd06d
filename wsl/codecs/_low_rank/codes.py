"""Vectors as integer codes of few bits, with a step for each run of entries."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.codecs import _bits

MOST_BITS = 16
# Steps that are tried, as parts of the one that reaches the largest entry. The
# last one reaches it after rounding to float16, too.
_PARTS = (*np.linspace(0.3, 1.0, 15), 1.001)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('planes', 'steps'),
  meta_fields=('bits', 'length', 'run'),
)
@dataclasses.dataclass(frozen=True)
class Segment:
  """Vectors of one number of bits.

  An entry is ``step (code - (2^bits - 1) / 2)``.

  Attributes:
    planes: the bit planes of the codes, lowest first, ``[bits, ..., vectors,
      ceil(length / 8)]``, uint8.
    steps: ``[..., vectors, ceil(length / run)]``, float16.
    bits: the bits of a code.
    length: the entries of a vector.
    run: the consecutive entries that share a step.
  """

  planes: Any
  steps: Any
  bits: int
  length: int
  run: int


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('segments',),
  meta_fields=('dtype', 'columns'),
)
@dataclasses.dataclass(frozen=True)
class Codes:
  """A factor of low rank whose vectors are codes; ``skillpack`` makes it.

  Attributes:
    segments: the vectors in order, those of equal bits together.
    dtype: the name of the dtype.
    columns: whether the vectors are columns (of B) or rows (of A).
  """

  segments: tuple[Segment, ...]
  dtype: str
  columns: bool

  @property
  def size(self) -> int:
    """Returns the number of entries."""
    return sum(
      int(np.prod(s.planes.shape[1:-1])) * s.length for s in self.segments
    )


def decode(codes: Codes) -> Any:
  """Returns the factor, on demand if its codes are."""
  arrays = [x for s in codes.segments for x in (s.planes, s.steps)]
  layout = tuple((s.bits, s.length, s.run) for s in codes.segments)
  return tree.apply_kernel(
    _decode,
    *arrays,
    layout=tree.Static(layout),
    dtype=tree.Static(np.dtype(codes.dtype)),
    columns=codes.columns,
  )


def encode(
  codes: np.ndarray, steps: np.ndarray, bits: int, run: int
) -> Segment:
  """Packs codes ``[..., vectors, length]``."""
  planes = [np.packbits((codes >> b) & 1 != 0, axis=-1) for b in range(bits)]
  return Segment(np.stack(planes), steps, bits, codes.shape[-1], run)


def levels(codes: np.ndarray, steps: np.ndarray, bits: Any) -> np.ndarray:
  """Returns the entries of codes, ``step (code - (2^bits - 1) / 2)``."""
  return (codes - (2.0**bits - 1) / 2) * steps


def nearest(x: np.ndarray, steps: np.ndarray, bits: Any) -> np.ndarray:
  """Returns the codes of the nearest levels."""
  with np.errstate(divide='ignore', invalid='ignore'):
    places = np.where(steps > 0, x / steps, 0.0)
  return np.clip(np.floor(places + 2.0**bits / 2), 0, 2.0**bits - 1).astype(int)


def best_steps(runs: np.ndarray, bits: Any) -> np.ndarray:
  """Returns the step of each run ``[..., length]`` of least squared error.

  The step that reaches the largest magnitude wastes levels on few entries:
  smaller ones clip those. Steps are in float16, as they are stored.
  """
  bits = np.asarray(bits)[..., None]
  reach = np.max(np.abs(runs), -1, keepdims=True) / (2.0**bits / 2)
  found, least = np.zeros_like(reach), np.full(reach.shape, np.inf)
  for part in _PARTS:
    steps = (part * reach).astype(np.float16).astype(runs.dtype)
    rounded = levels(nearest(runs, steps, bits), steps, bits)
    error = np.sum(np.square(rounded - runs), -1, keepdims=True)
    found = np.where(error < least, steps, found)
    least = np.minimum(error, least)
  return found[..., 0]


def bound(codes: Codes) -> float:
  """Returns the entropy of the codes of each segment, and the bits of steps."""
  total = 0.0
  for segment in codes.segments:
    planes = np.asarray(tree.read(segment.planes))
    found = np.unpackbits(planes, axis=-1, count=segment.length).astype(
      np.int32
    )
    values = sum(plane << b for b, plane in enumerate(found))
    total += _bits.entropy(np.bincount(np.ravel(values)))
    total += 8.0 * segment.steps.size * segment.steps.dtype.itemsize
  return total


def _decode(
  *arrays: types.Array,
  layout: tuple[tuple[int, int, int], ...],
  dtype: np.dtype,
  columns: bool,
) -> types.Array:
  """Returns the vectors of all segments, stacked."""
  wide = tree.wide_dtype(dtype)
  parts = []
  for i, (bits, length, run) in enumerate(layout):
    planes, steps = arrays[2 * i : 2 * i + 2]
    codes = _bits.unpack_codes(planes, length).astype(wide)
    each = jnp.repeat(steps.astype(wide), run, axis=-1)[..., :length]
    middle = np.asarray((2**bits - 1) / 2, wide)
    parts.append((codes - middle) * each)
  found = jnp.concatenate(parts, axis=-2)
  return (jnp.matrix_transpose(found) if columns else found).astype(dtype)
