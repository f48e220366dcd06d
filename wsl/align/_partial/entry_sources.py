"""Axes of a partial merge: which entries come from which of two models.

A group of n units of which k are kept separate becomes an axis of n + k: the
n - k merged ones, then those of A alone, then those of B alone. A ``Source``
says for each new entry where it is found in A and in B; -1 is nowhere.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np

from wsl.align import _symmetry


class Source(NamedTuple):
  """Where the entries of a new axis are found.

  Attributes:
    a: indices into A's axis, ``[n]``; -1 for an entry that A lacks.
    b: indices into B's axis, ``[n]``.
    sizes: lengths of A's and of B's axis.
  """

  a: np.ndarray
  b: np.ndarray
  sizes: tuple[int, int]

  @property
  def same(self) -> bool:
    """Whether the new axis is that of both models."""
    whole = np.arange(self.sizes[0])
    return np.array_equal(self.a, whole) and np.array_equal(self.b, whole)


class Split(NamedTuple):
  """How the groups of two models go together.

  Attributes:
    separate: how many units of a group are kept separate, the last ones.
    outputs: for factors whose entries are never the same thing, their size in
      B.
  """

  separate: dict[str, int]
  outputs: dict[str, int]


def of_factor(factor: _symmetry.Factor, split: Split) -> Source:
  """Returns the source of one factor."""
  n = factor.size
  if factor.name in split.outputs:
    m = split.outputs[factor.name]
    return _side_by_side(np.arange(0), n, m, (n, m))
  k = split.separate.get(factor.name, 0)
  return _side_by_side(np.arange(n - k), k, k, (n, n))


def product(sources: Sequence[Source]) -> Source:
  """Returns the source of a product of factors, the first one major."""
  a, b = np.zeros(1, np.int64), np.zeros(1, np.int64)
  for s in sources:
    a, b = _flat(a, s.a, s.sizes[0]), _flat(b, s.b, s.sizes[1])
  sizes = [math.prod(s.sizes[i] for s in sources) for i in range(2)]
  return Source(a, b, (sizes[0], sizes[1]))


def of_axis(
  segments: tuple[tuple[_symmetry.Factor, ...], ...], split: Split
) -> Source:
  """Returns the source of an axis: its segments, one after the other."""
  parts = [product([of_factor(f, split) for f in s]) for s in segments]
  a, b = [], []
  sizes = (0, 0)
  for part in parts:
    a.append(np.where(part.a >= 0, part.a + sizes[0], -1))
    b.append(np.where(part.b >= 0, part.b + sizes[1], -1))
    sizes = (sizes[0] + part.sizes[0], sizes[1] + part.sizes[1])
  return Source(np.concatenate(a), np.concatenate(b), sizes)


def _side_by_side(
  merged: np.ndarray, in_a: int, in_b: int, sizes: tuple[int, int]
) -> Source:
  start = len(merged)
  none_a, none_b = np.full(in_b, -1), np.full(in_a, -1)
  a = np.concatenate([merged, start + np.arange(in_a), none_a])
  b = np.concatenate([merged, none_b, start + np.arange(in_b)])
  return Source(a, b, sizes)


def _flat(major: np.ndarray, minor: np.ndarray, size: int) -> np.ndarray:
  major, minor = major[:, None], minor[None, :]
  found = (major >= 0) & (minor >= 0)
  return np.where(found, major * size + minor, -1).reshape(-1)
