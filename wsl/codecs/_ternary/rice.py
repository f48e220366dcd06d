r"""Rice codes of the places of non-zero entries, in chunks, with their signs.

The gaps between non-zeros that are independent with probability p are
geometric: :math:`P(g) = p (1 - p)^g`. Golomb's code of parameter M is optimal
for them: the quotient :math:`\lfloor g / M \rfloor` in unary, the remainder in
binary. Rice takes M = 2^k. At k = 0 the unary code is the bitmap itself, one
bit an entry.

A chunk stores its quotients, the k bit planes of its remainders and its signs
one after the other, each from a byte boundary on. So all of them are unpacked
by whole arrays. With the end :math:`e_i` of the i-th unary code (from 0), the
place of the i-th non-zero is

.. math:: x_i = i + \sum_{j \le i} g_j
  = i + 2^k (e_i - i) + \sum_{j \le i} r_j

Reference:
  Golomb, "Run-length encodings", 1966; Rice, "Some practical universal
  noiseless coding techniques", 1979.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

# Entries of a chunk: 1 MiB of float32, which a cache holds while it is decoded.
CHUNK = 1 << 18
_MOST_BITS = 18


class Coded(NamedTuple):
  """The codes of a leaf.

  Attributes:
    data: all chunks one after the other, ``[bytes]``.
    rows: for each chunk the number of non-zeros, the bits of their unary
      codes, and k, ``[chunks, 3]``.
  """

  data: np.ndarray
  rows: np.ndarray


def encode(chunks: Iterable[np.ndarray]) -> Coded:
  """Codes signs -1, 0, 1, given as int8 in chunks of ``CHUNK`` entries."""
  parts: list[np.ndarray] = []
  rows: list[tuple[int, int, int]] = []
  for signs in chunks:
    row, coded = _encode_chunk(signs)
    rows.append(row)
    parts += coded
  data = np.concatenate([np.empty(0, np.uint8), *parts])
  return Coded(data, np.asarray(rows, np.uint32).reshape(-1, 3))


def starts(index: np.ndarray) -> np.ndarray:
  """Returns the offsets of the chunks in the data, and its length."""
  count, unary, k = index.astype(np.int64).T
  sizes = _bytes(unary) + (k + 1) * _bytes(count)
  return np.concatenate([[0], np.cumsum(sizes)])


def decode(
  data: np.ndarray, row: np.ndarray, value: np.ndarray, out: np.ndarray
) -> None:
  """Fills a chunk ``out [n]`` with 0 and +-value.

  Args:
    data: the bytes of the chunk.
    row: its row of the index.
    value: a scalar in the dtype of ``out``.
    out: the chunk.

  Raises:
    ValueError: if the data are not those of a chunk of this length.
  """
  out[:] = 0
  places, signs = _decode(data, *map(int, row))
  if len(places) and places[-1] >= len(out):
    raise ValueError('the codes go beyond the end of the leaf')
  out[places] = np.stack([value, -value])[signs]


def _encode_chunk(
  signs: np.ndarray,
) -> tuple[tuple[int, int, int], list[np.ndarray]]:
  """Returns the row of the index, and the bytes, of one chunk."""
  places = np.flatnonzero(signs)
  gaps = np.diff(places, prepend=-1) - 1
  k = _parameter(gaps)
  ends = np.cumsum((gaps >> k) + 1) - 1
  unary = int(ends[-1]) + 1 if len(ends) else 0
  bits = np.zeros(unary, np.uint8)
  bits[ends] = 1
  planes = [np.packbits((gaps >> b) & 1 != 0) for b in range(k)]
  negative = np.packbits(signs[places] < 0)
  return (len(places), unary, k), [np.packbits(bits), *planes, negative]


def _parameter(gaps: np.ndarray) -> int:
  """Returns the k whose code of the gaps is the shortest."""
  if not len(gaps):
    return 0
  # The best k is near log2 of the mean gap times log 2; the length is convex.
  near = int(np.log2(max(float(gaps.mean()) * np.log(2), 1.0)))
  tried = range(max(near - 1, 0), min(near + 2, _MOST_BITS) + 1)
  return min(tried, key=lambda k: int((gaps >> k).sum()) + k * len(gaps))


def _decode(
  data: np.ndarray, count: int, unary: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the places of the non-zeros, and 1 for the negative ones."""
  width, at = _bytes(count), _bytes(unary)
  bits = np.unpackbits(data[:at], count=unary)
  places = np.flatnonzero(bits.view(bool))
  if len(places) != count:
    raise ValueError('the codes do not have the number of entries promised')
  if k:
    remainders = np.zeros(count, np.uint8 if k <= 8 else np.uint32)
    for b in range(k):
      plane = np.unpackbits(data[at : at + width], count=count)
      at += width
      plane = plane.astype(remainders.dtype, copy=False)
      np.left_shift(plane, b, out=plane)
      np.bitwise_or(remainders, plane, out=remainders)
    order = np.arange(count)
    places -= order
    places <<= k
    places += order
    places += np.cumsum(remainders, dtype=np.int64)
  return places, np.unpackbits(data[at : at + width], count=count)


def _bytes(bits: np.ndarray | int) -> np.ndarray | int:
  """Returns the number of bytes that hold a number of bits."""
  return -(-bits // 8)
