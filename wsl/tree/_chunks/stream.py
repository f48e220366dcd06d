"""Computes leaves in order, chunk by chunk, with the next inputs read ahead."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
import concurrent.futures
import contextlib
import functools
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl.tree import _on_demand, _program
from wsl.tree._chunks import buffers, cut, windows

AHEAD = 2  # windows that are read ahead
_HELD = 4  # results that are computed, or held by the consumer
CHUNK_BYTES = 1 << 20


def _read(name: str, leaf: Any) -> Any:
  """Computes a whole leaf."""
  del name
  return _on_demand.read(leaf)


def stream(
  leaves: Mapping[str, Any],
  *,
  chunk_bytes: int = CHUNK_BYTES,
  read: Callable[[str, Any], Any] = _read,
) -> Iterator[tuple[str, np.ndarray]]:
  """Computes leaves in order and returns them in chunks, as flat arrays.

  A leaf that is entrywise over its inputs, which is found from its traced
  program, is computed in chunks of fixed size: memory does not depend on the
  size of the leaf, leaves of all shapes share a compiled program, and the next
  inputs are read while a chunk is computed. Other leaves are computed as a
  whole. The results are equal bit by bit.

  Args:
    leaves: arrays or leaves on demand, by name.
    chunk_bytes: the size of each operand of a chunk.
    read: computes a leaf, by its name, that is not computed in chunks.

  Yields:
    ``(name, values)``: the entries of each leaf in row-major order, in one or
    more parts.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import tree
    >>> x = tree.defer({'a': jnp.ones(3), 'b': jnp.zeros((2, 2))})
    >>> [(name, values.tolist()) for name, values in stream(x)]
    [('a', [1.0, 1.0, 1.0]), ('b', [0.0, 0.0, 0.0, 0.0])]
  """
  items = (windows.Item(n, x, tuple(x.shape)) for n, x in leaves.items())
  for window, result in run(items, chunk_bytes, read):
    if isinstance(window, windows.Whole):
      yield window.name, np.asarray(result, order='C').reshape(-1)
      continue
    at, flat = 0, np.asarray(result).reshape(-1)
    del result
    for piece in window.pieces:
      end = at + piece.stop - piece.start
      yield piece.name, flat[at:end]
      at = end


def chunk_memory(
  leaf: Any,
  chunk_bytes: int = CHUNK_BYTES,
  *,
  lead: int = 0,
  beside: int = 0,
) -> int | None:
  """Returns the memory of a leaf's chunks in ``stream``, without a read.

  Args:
    leaf: an array, or a leaf on demand.
    chunk_bytes: as in ``stream``.
    lead: the number of axes that chunks have as a whole.
    beside: the entries of other leaves in the stream, whose chunks are in
      memory together with those of this one.

  Returns:
    The bytes of all chunks in memory at one time: those read ahead, computed
    and kept by the consumer. None if the leaf is computed as a whole.

  Example:
    >>> import jax.numpy as jnp
    >>> chunk_memory(jnp.ones(3)) is None
    True
  """
  shape = tuple(leaf.shape[lead:])
  window = cut.measure(windows.Item('', leaf, shape), chunk_bytes)
  if window is None:
    return None
  size = math.prod(shape) + beside
  length = min(window.most, size)
  number = -(-size // length)
  inputs = sum(math.prod(k) * dtype.itemsize for k, dtype in window.layout)
  result = math.prod(leaf.shape[:lead]) * leaf.dtype.itemsize
  if window.program is None:  # The consumer gets the input.
    return length * inputs * min(number, AHEAD + _HELD)
  computed = result * min(number, _HELD) + inputs * min(number, AHEAD + 2)
  return length * computed


def run(
  items: Iterable[windows.Item],
  chunk_bytes: int,
  read: Callable[[str, Any], Any] = _read,
) -> Iterator[tuple[windows.Window | windows.Whole, Any]]:
  """Computes windows in order; yields each with its result.

  Two windows are read ahead by a thread, and one is computed while the consumer
  handles the one before it.
  """
  pool, reader = buffers.Buffers(), _reader(os.getpid())
  queue = cut.cut(items, chunk_bytes)
  held: dict[int, Any] = {}
  ahead: collections.deque[Any] = collections.deque()
  running: collections.deque[Any] = collections.deque()
  try:
    while True:
      while len(ahead) < AHEAD:
        window = next(queue, None)
        if window is None:
          break
        fill = None
        if isinstance(window, windows.Window):
          fill = reader.submit(window.fill, pool)
        ahead.append((window, fill))
      if ahead:
        window, fill = ahead.popleft()
        if isinstance(window, windows.Whole):
          # The consumer gets a result before the next whole leaf is computed.
          while running:
            yield running.popleft()
          yield window, read(window.name, window.leaf)
        else:
          held = _uniform(window, held)
          running.append((window, _start(window, fill.result(), held)))
        del fill
      elif not running:
        return
      if len(running) > 1 or (running and not ahead):
        yield running.popleft()
  finally:
    for _, fill in ahead:
      if fill is not None:
        fill.cancel()


@functools.cache
def _reader(pid: int) -> concurrent.futures.Executor:
  """Returns the thread that reads ahead; a forked process has its own.

  One thread serves all streams: each thread has a heap of its own, which keeps
  the memory that it has released.
  """
  del pid  # part of the key
  return concurrent.futures.ThreadPoolExecutor(1, 'wsl.tree.stream')


def _uniform(window: windows.Window, held: dict[int, Any]) -> dict[int, Any]:
  """Reads the uniform inputs of a window on demand, once for all of a leaf.

  Args:
    window: what is computed next.
    held: the leaf and the array by its identity, of the window before it.
  """
  nodes = {id(x): x for x in window.uniform if _on_demand.on_demand(x)}

  def read(x: Any) -> tuple[Any, Any]:
    array = _on_demand.read(x)
    # An array of JAX is not copied again for each chunk.
    keep = _program.narrowed(array.dtype)
    return x, array if keep else jnp.asarray(array)

  return {i: held[i] if i in held else read(x) for i, x in nodes.items()}


def _start(
  window: windows.Window, arrays: list[np.ndarray], held: dict[int, Any]
) -> Any:
  """Starts the computation of a window."""
  if window.program is None:
    return arrays[0]
  program = window.program(window.length)
  assert program is not None
  given = iter(arrays)
  inputs = [
    (held[id(x)][1] if id(x) in held else x) if lead is None else next(given)
    for x, lead in zip(window.uniform, program.leads)
  ]
  start = window.pieces[0].start if program.positional else 0
  with jax.enable_x64(True) if program.wide else contextlib.nullcontext():
    filled = np.uint32(window.filled)
    return program.run(np.uint32(start), filled, *inputs)
