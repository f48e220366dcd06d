"""Cuts leaves into windows.

Consecutive leaves with one program and the same uniform inputs are one sequence
of positions, which is cut into windows of n positions: a window holds many
small leaves, or a part of a large one.
"""

from collections.abc import Callable, Iterable, Iterator
import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl.tree import _nodes
from wsl.tree._chunks import programs, windows

_WIDEST = 16  # bytes of a complex number


def cut(
  items: Iterable[windows.Item], nbytes: int
) -> Iterator[windows.Window | windows.Whole]:
  """Cuts leaves into windows.

  Args:
    items: what to compute, in order.
    nbytes: the size of an operand in a window.

  Yields:
    Windows, and leaves that cannot be cut, in the order of the items.
  """
  window, key, sequence = None, None, None
  for item in items:
    # Arrays that were read as a whole are released before others are read.
    if window is not None and sequence is not None and sequence.read:
      yield window
      window = None
    sequence = None
    sequence = _sequence(item, nbytes)
    if sequence is None:
      if window is not None:
        yield window
      window = None
      yield windows.Whole(item.name, item.leaf)
      continue
    spans = [(0, math.prod(item.shape))] if item.spans is None else item.spans
    for start, end in spans:
      while start < end:
        if window is not None and sequence.key != key:
          yield window
          window = None
        window = window or sequence.window()
        key = sequence.key
        stop = min(end, start + window.most - window.filled)
        window.pieces.append(
          windows.Piece(item.name, sequence.sources, start, stop)
        )
        window.filled += stop - start
        start = stop
        if window.filled == window.most or sequence.single:
          yield window
          window = None
  if window is not None:
    yield window


def is_cut(item: windows.Item, nbytes: int) -> bool:
  """Returns True if a leaf is computed in windows, of ``nbytes`` as in ``cut``.

  The size does not matter, but each one is traced.
  """
  return _sequence(item, nbytes) is not None


class _Sequence(NamedTuple):
  """How a leaf is computed in windows.

  Attributes:
    key: equal keys may share a window.
    window: returns an empty window.
    sources: see ``windows.Piece``.
    single: whether a window may hold one piece only.
    read: whether a source is an array that was read as a whole.
  """

  key: Any
  window: Callable[[], windows.Window]
  sources: tuple[Any, ...]
  single: bool
  read: bool = False


def _source(x: Any, lead: int) -> Any:
  """Returns a stored leaf, or an array as rows; None if neither is possible."""
  if isinstance(x, _nodes.Stored):
    if x.read_into is not None:
      return x
    if getattr(x.fetch, 'sharding', None) is not None:
      return None
    value = x.fetch()
    if tuple(value.shape) != tuple(x.shape) or value.dtype != x.dtype:
      return None
    x = value
  if isinstance(x, jax.core.Tracer):
    return None
  if isinstance(x, jax.Array):
    devices = x.devices()
    if len(devices) > 1 or next(iter(devices)).platform != 'cpu':
      return None
  return np.asarray(x).reshape(math.prod(x.shape[:lead]), -1)


def measure(item: windows.Item, nbytes: int) -> windows.Window | None:
  """Returns an empty window of a leaf, without a read; None if it is whole."""
  sequence = _sequence(item, nbytes, lambda x, lead: x)
  return None if sequence is None else sequence.window()


def _sequence(
  item: windows.Item, nbytes: int, source: Callable[[Any, int], Any] = _source
) -> _Sequence | None:
  """Returns how a leaf is cut; None if it cannot be.

  ``source`` opens an input to be read at the positions of a window.
  """
  leaf, shape = item.leaf, tuple(item.shape)
  if not all(shape):
    return None
  if isinstance(leaf, _nodes.Stored) and shape == tuple(leaf.shape):
    return _copied(leaf, nbytes)
  if not isinstance(leaf, _nodes.Computed):
    return None
  if math.prod(shape) == 1 and item.entries is None:
    # XLA compiles arrays of one entry as numbers, which may round otherwise.
    return None
  _, inputs, kinds = leaf.linear
  find = functools.partial(programs.find, leaf, shape, entries=item.entries)
  widths = [k.dtype.itemsize for k in kinds if k and (k.stored or k.array)]
  most = _power(nbytes // max(widths, default=_WIDEST))
  chunk = find(most)
  if chunk is None:
    return None
  split = [(x, k) for x, k in zip(inputs, chunk.leads) if k is not None]
  sources = tuple(source(x, k) for x, k in split)
  if not sources or any(x is None for x in sources):
    return None
  layout = tuple((tuple(x.shape[:k]), x.dtype) for x, k in split)
  uniform = tuple(x if k is None else None for x, k in zip(inputs, chunk.leads))
  key = (chunk.run, layout, *map(_identity, uniform))
  exact = not item.entries or jax.numpy.issubdtype(chunk.dtype, np.integer)
  if not exact:
    key = (item.name, *key)  # Sums are rounded, whatever the leaves beside it.
  window = functools.partial(
    windows.Window, find, most, uniform, layout, bool(exact)
  )
  read = any(
    isinstance(x, _nodes.Stored) and isinstance(opened, np.ndarray)
    for (x, _), opened in zip(split, sources)
  )
  return _Sequence(key, window, sources, chunk.positional, read)


def _copied(leaf: _nodes.Stored, nbytes: int) -> _Sequence | None:
  """Returns how a leaf is cut that is not computed."""
  if leaf.read_into is None:
    return None
  most = max(nbytes // leaf.dtype.itemsize, 1)
  copied: windows.Layout = (((), leaf.dtype),)
  window = functools.partial(windows.Window, None, most, (), copied, True)
  return _Sequence(('copy', leaf.dtype), window, (leaf,), False)


def _power(n: int) -> int:
  """Returns the largest power of two of at most n."""
  return max(1 << max(n, 1).bit_length() - 1, windows.SHORTEST)


def _identity(x: Any) -> Any:
  """Returns a key that is equal for the same value of a uniform input."""
  return (type(x), x) if isinstance(x, (int, float)) else id(x)
