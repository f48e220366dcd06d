"""Cuts leaves into windows: what one run of a chunk program computes.

Consecutive leaves with one program and the same uniform inputs are one sequence
of positions, which is cut into windows of n positions: a window holds many
small leaves, or a part of a large one.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from wsl.tree import _on_demand
from wsl.tree._chunks import buffers, programs

# The leading axes and the dtype of each chunked input.
Layout: TypeAlias = tuple[tuple[tuple[int, ...], np.dtype], ...]
# The last window of a sequence is padded to a length of this series.
_SHRINK = 8
_SHORTEST = 64


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
    pieces: what the window holds.
    filled: the number of its positions.
  """

  program: Callable[[int], programs.ChunkProgram | None] | None
  most: int
  uniform: tuple[Any, ...]
  layout: Layout
  pieces: list[Piece] = dataclasses.field(default_factory=list)
  filled: int = 0

  def length(self) -> int:
    """Returns n, the number of positions with the padding."""
    n = self.most
    while n // _SHRINK >= max(self.filled, _SHORTEST):
      n //= _SHRINK
    return n

  def fill(self, pool: buffers.Buffers) -> list[np.ndarray]:
    """Reads the chunked inputs, each ``[*lead, n]``."""
    n = self.length() if self.program else self.filled
    arrays = []
    for i, (lead, dtype) in enumerate(self.layout):
      array = pool.take((math.prod(lead), n), dtype)
      at = 0
      for piece in self.pieces:
        end = at + piece.stop - piece.start
        _read(piece.sources[i], piece, array[:, at:end])
        at = end
      arrays.append(array.reshape(*lead, n))
    return arrays


class Whole(NamedTuple):
  """A leaf that is computed as a whole."""

  name: str
  leaf: Any


def cut(
  leaves: Iterable[tuple[str, Any]], nbytes: int
) -> Iterator[Window | Whole]:
  """Cuts leaves into windows.

  Args:
    leaves: arrays or leaves on demand with their names.
    nbytes: the size of an operand in a window.

  Yields:
    Windows, and leaves that cannot be cut, in the order of the leaves.
  """
  window, key = None, None
  for name, leaf in leaves:
    sequence = _sequence(leaf, nbytes)
    if sequence is None:
      if window is not None:
        yield window
      window, key = None, None
      yield Whole(name, leaf)
      continue
    start, size = 0, math.prod(leaf.shape)
    while start < size:
      if window is not None and sequence.key != key:
        yield window
        window = None
      window = window or sequence.window()
      key = sequence.key
      stop = min(size, start + window.most - window.filled)
      window.pieces.append(Piece(name, sequence.sources, start, stop))
      window.filled += stop - start
      start = stop
      if window.filled == window.most or sequence.single:
        yield window
        window = None
  if window is not None:
    yield window


def is_cut(leaf: Any) -> bool:
  """Returns True if a leaf is computed in windows."""
  return _sequence(leaf, 1) is not None


class _Sequence(NamedTuple):
  """How a leaf is computed in windows.

  Attributes:
    key: equal keys may share a window.
    window: returns an empty window.
    sources: see ``Piece``.
    single: whether a window may hold one piece only.
  """

  key: Any
  window: Callable[[], Window]
  sources: tuple[Any, ...]
  single: bool


def _sequence(leaf: Any, nbytes: int) -> _Sequence | None:
  """Returns how a leaf is cut; None if it cannot be."""
  if not all(leaf.shape):
    return None
  if not isinstance(leaf, _on_demand.Computed):
    source = _source(leaf, 0)
    if source is None or leaf.dtype.hasobject:
      return None
    most = max(nbytes // leaf.dtype.itemsize, 1)
    copied: Layout = (((), leaf.dtype),)
    window = functools.partial(Window, None, most, (), copied)
    return _Sequence(('copy', leaf.dtype), window, (source,), False)
  shape = tuple(leaf.shape)
  if math.prod(shape) == 1:
    # XLA compiles arrays of one entry as numbers, which may round otherwise.
    return None
  program, inputs = _on_demand.linearise(leaf)
  find = functools.partial(programs.find, program, inputs, shape)
  widths = [x.dtype.itemsize for x in inputs if _is_array(x)]
  most = _power(nbytes // max([leaf.dtype.itemsize, *widths]))
  chunk = find(most)
  if chunk is None:
    return None
  split = [(x, k) for x, k in zip(inputs, chunk.leads) if k is not None]
  sources = tuple(_source(x, k) for x, k in split)
  if not sources or any(source is None for source in sources):
    return None
  layout = tuple((tuple(x.shape[:k]), x.dtype) for x, k in split)
  uniform = tuple(x if k is None else None for x, k in zip(inputs, chunk.leads))
  key = (chunk.run, layout, *map(_identity, uniform))
  window = functools.partial(Window, find, most, uniform, layout)
  return _Sequence(key, window, sources, chunk.positional)


def _power(n: int) -> int:
  """Returns the largest power of two of at most n."""
  return max(1 << max(n, 1).bit_length() - 1, _SHORTEST)


def _is_array(x: Any) -> bool:
  """Returns True for an input that may be read in chunks."""
  return isinstance(x, (_on_demand.Stored, np.ndarray, jax.Array))


def _identity(x: Any) -> Any:
  """Returns a key that is equal for the same value of a uniform input."""
  return (type(x), x) if isinstance(x, (int, float)) else id(x)


def _source(x: Any, lead: int) -> Any:
  """Returns a stored leaf, or an array as rows; None if neither is possible."""
  if isinstance(x, _on_demand.Stored):
    if x.read_into is not None:
      return x
    if getattr(x.fetch, 'sharding', None) is not None:
      return None
    value = x.fetch()
    if tuple(value.shape) != tuple(x.shape) or value.dtype != x.dtype:
      return None
    x = value
  if isinstance(x, jax.Array):
    devices = x.devices()
    if len(devices) > 1 or next(iter(devices)).platform != 'cpu':
      return None
  return np.asarray(x).reshape(math.prod(x.shape[:lead]), -1)


def _read(source: Any, piece: Piece, out: np.ndarray) -> None:
  """Reads the positions of a piece into rows ``[lead, stop - start]``."""
  if isinstance(source, np.ndarray):
    out[:] = source[:, piece.start : piece.stop]
    return
  size = source.size // len(out)
  for i, row in enumerate(out):
    source.read_into(i * size + piece.start, row)
