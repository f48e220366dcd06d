"""Windows: the positions that one run of a chunk program computes."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import math
from typing import Any, NamedTuple, TypeAlias
import weakref

import numpy as np

from wsl.tree._chunks import buffers, programs

# The leading axes and the dtype of each chunked input.
Layout: TypeAlias = tuple[tuple[tuple[int, ...], np.dtype], ...]
# The last window of a sequence is padded to a length of this series ...
_SHRINK = 8
SHORTEST = 64
# ... or up to so many times to the full length, if other windows have it: a
# compilation takes as long as hundreds of windows.
_PADDING = 64


# The programs of full length that are compiled, or will be.
_in_use: 'weakref.WeakSet[Callable[..., Any]]' = weakref.WeakSet()


class Item(NamedTuple):
  """What to compute of a leaf.

  Attributes:
    name: the leaf.
    leaf: an array or a leaf on demand.
    shape: S, the trailing axes of the leaf: its positions.
    entries: how the leaf's kernel reduces the positions, if it does.
    spans: the positions ``(start, stop)`` to compute; None for all.
  """

  name: str
  leaf: Any
  shape: tuple[int, ...]
  entries: programs.Entries | None = None
  spans: Sequence[tuple[int, int]] | None = None


class Piece(NamedTuple):
  """Consecutive positions of one leaf, and the inputs that are read there.

  Attributes:
    name: the leaf.
    sources: for each chunked input a stored leaf, or rows ``[lead, N]``.
    start: the first position.
    stop: the end of the positions.
  """

  name: str
  sources: tuple[Any, ...]
  start: int
  stop: int


@dataclasses.dataclass
class Window:
  """Pieces to compute together.

  Attributes:
    program: maps n to the program of n positions; None copies the only input.
    most: the largest n.
    uniform: the inputs in order, None where they are chunked.
    layout: for each chunked input its leading axes and dtype.
    exact: whether results do not depend on n; sums of floats are rounded.
    pieces: what the window holds.
    filled: the number of its positions.
  """

  program: Callable[[int], programs.ChunkProgram | None] | None
  most: int
  uniform: tuple[Any, ...]
  layout: Layout
  exact: bool
  pieces: list[Piece] = dataclasses.field(default_factory=list)
  filled: int = 0

  @functools.cached_property
  def length(self) -> int:
    """Returns n, the number of positions with the padding.

    It is chosen when the window is filled, after those before it.
    """
    n = self.most
    while n // _SHRINK >= max(self.filled, SHORTEST):
      n //= _SHRINK
    if self.program is None:
      return n
    full = self.program(self.most)
    if full is None or not self.exact:
      return n
    if n == self.most:
      _in_use.add(full.run)
    elif full.run in _in_use and self.most <= _PADDING * self.filled:
      return self.most
    return n

  def fill(self, pool: buffers.Buffers) -> list[np.ndarray]:
    """Reads the chunked inputs, each ``[*lead, n]``."""
    n = self.length if self.program else self.filled
    arrays = []
    for i, (lead, dtype) in enumerate(self.layout):
      array = pool.take((math.prod(lead), n), dtype)
      at = 0
      for piece in self.pieces:
        end = at + piece.stop - piece.start
        _read(piece.sources[i], piece, array[:, at:end])
        at = end
      arrays.append(array.reshape(*lead, n))
    # The sources of a leaf are released with its last window.
    self.pieces = [piece._replace(sources=()) for piece in self.pieces]
    return arrays


class Whole(NamedTuple):
  """A leaf that is computed as a whole."""

  name: str
  leaf: Any


def _read(source: Any, piece: Piece, out: np.ndarray) -> None:
  """Reads the positions of a piece into rows ``[lead, stop - start]``."""
  if isinstance(source, np.ndarray):
    out[:] = source[:, piece.start : piece.stop]
    return
  size = source.size // len(out)
  for i, row in enumerate(out):
    source.read_into(i * size + piece.start, row)
