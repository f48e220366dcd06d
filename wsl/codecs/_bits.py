"""Bools and small integers as packed bits, most significant bit first."""

import math

import jax.numpy as jnp
import numpy as np

from wsl import types


def pack(x: types.Array) -> types.Array:
  """Packs bools ``[..., n]`` into bytes ``[..., ceil(n / 8)]``."""
  return jnp.packbits(x, axis=-1)


def unpack(data: types.Array, size: int) -> types.Array:
  """Unpacks bytes into bools ``[..., size]``."""
  return jnp.unpackbits(data, axis=-1, count=size).astype(bool)


def pack_codes(codes: types.Array, bits: int) -> types.Array:
  """Packs integers 0 .. 2^bits - 1, ``[..., n]``, as planes ``[bits, ...]``."""
  planes = [(codes >> b) & 1 != 0 for b in range(bits)]
  return jnp.stack([pack(plane) for plane in planes])


def unpack_codes(data: types.Array, size: int) -> types.Array:
  """Unpacks planes ``[bits, ..., bytes]`` into int32 ``[..., size]``."""
  planes = unpack(data, size).astype(np.int32)
  return sum(
    (planes[b] << np.int32(b) for b in range(1, len(planes))), start=planes[0]
  )


def entropy(counts: np.ndarray) -> float:
  """Returns n times the order-0 entropy of symbols with these counts."""
  counts = np.asarray(counts, np.float64)
  counts = counts[counts > 0]
  return -float(np.sum(counts * np.log2(counts / counts.sum())))


def nbytes(size: int) -> int:
  """Returns the number of bytes that hold a number of bits."""
  return math.ceil(size / 8)
