"""Axes of a partial merge: the entries of A and B behind each new entry.

A group of n units, of which k are kept separate, becomes an axis of n + k
entries: the n - k merged units, then the k separate units of A, then those of
B. A ``Source`` gives the index of each new entry in A and in B, or -1 if it
does not exist there.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np

from wsl.align import _blocks, _symmetry


class Source(NamedTuple):
  """Indices of the entries of a new axis in the axes of A and B.

  Attributes:
    a: indices into A's axis, ``[n]``; -1 for entries of B alone.
    b: indices into B's axis, ``[n]``; -1 for entries of A alone.
    sizes: lengths of A's and of B's axis.
  """

  a: np.ndarray
  b: np.ndarray
  sizes: tuple[int, int]

  @property
  def same(self) -> bool:
    """Whether the new axis equals that of both models."""
    whole = np.arange(self.sizes[0])
    return np.array_equal(self.a, whole) and np.array_equal(self.b, whole)


class UnitCounts(NamedTuple):
  """How many units of two models are separate.

  Attributes:
    separate: number of separate units of each group; they are its last ones.
    outputs: for pinned factors with different meanings in the two models, such
      as classes of different label spaces, their size in B.
  """

  separate: dict[str, int]
  outputs: dict[str, int]


def of_factor(factor: _symmetry.Factor, counts: UnitCounts) -> Source:
  """Returns the source of one factor."""
  n = factor.size
  if factor.name in counts.outputs:
    m = counts.outputs[factor.name]
    return _merged_then_separate(0, n, m, (n, m))
  k = counts.separate.get(factor.name, 0)
  return _merged_then_separate(n - k, k, k, (n, n))


def product(sources: Sequence[Source]) -> Source:
  """Returns the source of a product of factors, major to minor."""
  # A product of factors flattens (i, j) to i * size + j in each model. It is
  # absent from a model if one of the factors is: a separate unit of A times a
  # separate unit of B is in neither, and its entries are zero.
  a, b = np.zeros(1, np.int64), np.zeros(1, np.int64)
  for s in sources:
    a = _product_index(a, s.a, s.sizes[0])
    b = _product_index(b, s.b, s.sizes[1])
  sizes = [math.prod(s.sizes[i] for s in sources) for i in range(2)]
  return Source(a, b, (sizes[0], sizes[1]))


def of_axis(parts: tuple[_blocks.Part, ...], counts: UnitCounts) -> Source:
  """Returns the source of an axis: the concatenation of its parts."""
  found: list[Source] = []
  for part in parts:
    inner = [of_axis(part.parts, counts)] if part.parts else []
    found.append(
      product([*(of_factor(f, counts) for f in part.factors), *inner])
    )
  a, b = [], []
  sizes = (0, 0)
  for source in found:
    a.append(np.where(source.a >= 0, source.a + sizes[0], -1))
    b.append(np.where(source.b >= 0, source.b + sizes[1], -1))
    sizes = (sizes[0] + source.sizes[0], sizes[1] + source.sizes[1])
  return Source(np.concatenate(a), np.concatenate(b), sizes)


def _merged_then_separate(
  merged: int, in_a: int, in_b: int, sizes: tuple[int, int]
) -> Source:
  """Returns merged entries, then those of A alone, then those of B alone."""
  both, absent = np.arange(merged), -1
  a = np.concatenate([both, merged + np.arange(in_a), np.full(in_b, absent)])
  b = np.concatenate([both, np.full(in_a, absent), merged + np.arange(in_b)])
  return Source(a, b, sizes)


def _product_index(
  major: np.ndarray, minor: np.ndarray, size: int
) -> np.ndarray:
  """Returns flat indices ``major * size + minor``; -1 if either is absent."""
  major, minor = major[:, None], minor[None, :]
  found = (major >= 0) & (minor >= 0)
  return np.where(found, major * size + minor, -1).reshape(-1)
