"""Hashes that a file records, each due before its leaf is first used."""

import bisect
from collections.abc import Iterable
from typing import NamedTuple


class Recorded(NamedTuple):
  """A leaf's bytes in a file and the SHA-256 that the file records of them."""

  start: int
  nbytes: int
  name: str
  digest: str


class Hashes:
  """The recorded hashes of a file that have not been verified yet."""

  def __init__(self, leaves: Iterable[Recorded]):
    present = sorted(leaf for leaf in leaves if leaf.nbytes)
    self._starts = [leaf.start for leaf in present]
    self._due = dict(zip(self._starts, present))

  def due(self, start: int, nbytes: int) -> list[Recorded]:
    """Returns the leaves in a range of bytes that are not verified."""
    first = max(bisect.bisect_right(self._starts, start) - 1, 0)
    last = bisect.bisect_left(self._starts, start + nbytes)
    starts = self._starts[first:last]
    return [self._due[i] for i in starts if i in self._due]

  def verified(self, leaf: Recorded) -> None:
    """Notes that the hash of a leaf is right."""
    self._due.pop(leaf.start, None)
