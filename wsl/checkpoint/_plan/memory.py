"""The memory of leaves while they are computed."""

import math
import operator
import pathlib
from typing import Any

import jax
import numpy as np

from wsl import tree

# Resident memory of a compiled program and of its compilation, about.
PROGRAM = 10 << 20
# The allocator returns larger blocks to the system when they are released. Of
# smaller ones it keeps some for each thread that decodes arrays.
_RETURNED = 32 << 20
# Resident memory of the code that decodes arrays, about.
_DECODER = 10 << 20


class Meter:
  """The memory that leaves need; equal expressions are analysed once."""

  def __init__(self, chunk_bytes: int, entries: int) -> None:
    """Creates a meter for leaves of so many entries."""
    self.chunk_bytes = chunk_bytes
    self.entries = entries
    self.together = 0  # bytes of chunks, those of other leaves beside them
    self.programs: set[Any] = set()
    self.kept = 0  # bytes that remain after arrays are decoded
    self._known: dict[Any, tuple[str, int]] = {}

  def of(self, leaf: Any, bytes_in: int, bytes_out: int) -> tuple[str, int]:
    """Returns how a leaf is computed, and the bytes that this holds."""
    how, held = self._of_kind(leaf, bytes_in, bytes_out)
    self.kept = max(self.kept, _kept(_decoded(leaf)))
    at_once = how == 'whole' or (how == 'copied' and _is_whole(leaf))
    return how, held if at_once else held + _held(leaf)

  def _of_kind(
    self, leaf: Any, bytes_in: int, bytes_out: int
  ) -> tuple[str, int]:
    """Returns the same, without what readers hold between chunks."""
    if not isinstance(leaf, tree.Computed):
      copied = 'copied', tuple(leaf.shape), leaf.dtype, type(leaf)
      if copied not in self._known:
        held = self._in_chunks(leaf)
        # While an array is decoded, its encoded bytes are in memory too.
        whole = max(2 * bytes_in if _is_whole(leaf) else bytes_in, bytes_out)
        self._known[copied] = 'copied', whole if held is None else held
      return self._known[copied]
    program, _, kinds = leaf.linear
    key = program, kinds
    if key not in self._known:
      self.programs.add(program)
      held = self._in_chunks(leaf)
      if held is None:
        scratch = bytes_in + bytes_out + _scratch(leaf)
        self._known[key] = 'whole', scratch
      else:
        self._known[key] = 'in chunks', held
    return self._known[key]

  def _in_chunks(self, leaf: Any) -> int | None:
    """Returns the bytes of a leaf's chunks; None if it is whole."""
    beside = self.entries - math.prod(leaf.shape)
    held = tree.chunk_memory(leaf, self.chunk_bytes, beside=beside)
    self.together = max(self.together, held or 0)
    return tree.chunk_memory(leaf, self.chunk_bytes)

  def of_statistic(self, leaf: Any) -> int:
    """Returns the bytes that a pass of a statistic over a leaf holds."""
    if not isinstance(leaf, tree.Computed):
      return self.of(leaf, nbytes(leaf), 0)[1]
    program, inputs, kinds = leaf.linear
    key = 'statistic', program, kinds
    if key not in self._known:
      stored = [x for x in inputs if isinstance(x, tree.Stored)]
      lead = leaf.ndim - max((x.ndim for x in stored), default=leaf.ndim)
      held = None
      if lead >= 0:
        held = tree.chunk_memory(leaf, self.chunk_bytes, lead=lead)
      if held is None:
        held = nbytes(leaf) + sum(map(nbytes, stored))
      self._known[key] = '', held
    return self._known[key][1]


def _held(leaf: Any) -> int:
  """Returns the bytes that the readers of a leaf hold between chunks.

  An array that has no parts is held until its last chunk; one that is read by
  slabs, for a slab. While one is read, its encoded bytes are in memory too.
  """
  held = _decoded(leaf)
  return sum(held) + max(held, default=0)


def _decoded(leaf: Any) -> list[int]:
  """Returns the bytes of each array or slab that is decoded for a leaf."""
  held = []
  for x in tree.inputs(leaf):
    if _is_whole(x):
      held.append(nbytes(x))
    elif parts := getattr(getattr(x, 'fetch', None), 'parts', None):
      held.append(parts.held)
  return held


def _kept(decoded: list[int]) -> int:
  """Returns the resident memory that remains after a leaf's arrays are decoded.

  Measured for 1 to 3 arrays of 2 to 64 MiB: the decoder, one block of each size
  and two of the largest.
  """
  small = [n for n in decoded if n < _RETURNED]
  code = _DECODER if any(decoded) else 0
  return code + sum(small) + 2 * max(small, default=0)


def _is_whole(x: Any) -> bool:
  """Returns whether a leaf is read as a whole, and not in memory already."""
  return isinstance(x, tree.Stored) and x.read_into is None and x.array is None


def _scratch(leaf: tree.Computed) -> int:
  """Returns the scratch bytes of the program that computes a leaf."""
  arrays = [x for x in tree.inputs(leaf) if hasattr(x, 'dtype')]
  compute = lambda *values: tree.evaluate(leaf, arrays, values)
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays]
  analysis = jax.jit(compute).lower(*shapes).compile().memory_analysis()
  return 0 if analysis is None else int(analysis.temp_size_in_bytes)


def nbytes(leaf: Any) -> int:
  """Returns the size of a leaf."""
  return int(math.prod(leaf.shape)) * int(leaf.dtype.itemsize)


_compile_once = jax.jit(operator.neg)


def resident(compiles: bool) -> int:
  """Returns the resident memory of this process; 0 if it is not known.

  Args:
    compiles: whether a program will be compiled: the first one of a process
      brings the compiler itself, tens of megabytes, into memory.
  """
  status = pathlib.Path('/proc/self/status')
  if not status.exists():
    return 0
  jax.devices()  # A save starts the backend.
  if compiles:
    _compile_once(np.float32(1))
  lines = status.read_text().splitlines()
  return int(next(x for x in lines if 'VmRSS' in x).split()[1]) << 10
