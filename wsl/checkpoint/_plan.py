"""The bytes that a save reads, writes and holds, computed in advance."""

from collections.abc import Sequence
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import tree, types
from wsl.checkpoint import _format, _load

_SHOWN = 10


class LeafPlan(NamedTuple):
  """One leaf: its shape, dtype and bytes.

  Attributes:
    name: the leaf's name.
    shape: its shape.
    dtype: its dtype.
    bytes_in: bytes read from files.
    bytes_out: bytes written.
    peak_bytes: memory needed to compute it.
  """

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  bytes_in: int
  bytes_out: int
  peak_bytes: int


class Plan(NamedTuple):
  """All leaves, and totals; ``str(plan)`` is a table of the largest.

  Attributes:
    leaves: a ``LeafPlan`` for each leaf.
    bytes_in: the sum over the leaves.
    bytes_out: the sum over the leaves.
    peak_bytes: the largest memory in use at one time: a leaf, and the previous
      one while it is written. Arrays already in memory and the compiled
      programs are not included.
  """

  leaves: tuple[LeafPlan, ...]
  bytes_in: int
  bytes_out: int
  peak_bytes: int

  def __str__(self) -> str:
    """Returns the totals and a line for each of the largest leaves."""
    human = _format.human
    lines = [
      f'{len(self.leaves)} leaves, read {human(self.bytes_in)}, write '
      f'{human(self.bytes_out)}, hold {human(self.peak_bytes)} at once'
    ]
    largest = sorted(self.leaves, key=lambda leaf: -leaf.peak_bytes)[:_SHOWN]
    width = max((len(leaf.name) for leaf in largest), default=0)
    for leaf in largest:
      kind = f'{leaf.dtype}{list(leaf.shape)}'
      lines.append(
        f'  {leaf.name:{width}}  {kind}: read {human(leaf.bytes_in)}, '
        f'write {human(leaf.bytes_out)}, hold {human(leaf.peak_bytes)}'
      )
    if len(self.leaves) > _SHOWN:
      lines.append(f'  and {len(self.leaves) - _SHOWN} smaller ones')
    return '\n'.join(lines)


def plan(what: types.Params | str | os.PathLike[str]) -> Plan:
  """Computes what ``save`` would read, write and hold, without reading leaves.

  The scratch memory of a computed leaf is the compiler's estimate, obtained
  once for each expression, shapes and dtypes.

  Args:
    what: parameters, on demand or not, or a path as in ``load``.

  Returns:
    The plan: sizes in bytes.

  Raises:
    FileNotFoundError: if the path does not exist.
    ValueError: if a file is damaged.

  Example:
    >>> import numpy as np
    >>> from wsl import checkpoint
    >>> print(checkpoint.plan({'w': np.ones((2, 3), np.float32)}))
    1 leaves, read 0 B, write 24 B, hold 24 B at once
      w  float32[2, 3]: read 0 B, write 24 B, hold 24 B
  """
  if isinstance(what, (str, os.PathLike)):
    what = _load.load(what, lazy=True)
  scratch: dict[Any, int] = {}
  leaves = tuple(
    _leaf(name, leaf, scratch) for name, leaf in tree.named(what).items()
  )
  return Plan(
    leaves,
    sum(leaf.bytes_in for leaf in leaves),
    sum(leaf.bytes_out for leaf in leaves),
    _peak(leaves),
  )


def _peak(leaves: Sequence[LeafPlan]) -> int:
  """Returns the peak: a leaf is written while the next one is computed."""
  order = sorted(leaves, key=lambda leaf: -leaf.dtype.itemsize)
  written = [0, *(leaf.bytes_out for leaf in order)]
  held = (leaf.peak_bytes + out for leaf, out in zip(order, written))
  return max(held, default=0)


def _leaf(name: str, leaf: Any, scratch: dict[Any, int]) -> LeafPlan:
  """Plans one leaf; ``scratch`` caches the memory of programs."""
  leaf = leaf if hasattr(leaf, 'dtype') else np.asarray(leaf)
  bytes_in = sum(
    _nbytes(x) for x in tree.inputs(leaf) if isinstance(x, tree.Stored)
  )
  bytes_out = _nbytes(leaf)
  peak = max(bytes_in, bytes_out)
  if isinstance(leaf, tree.Computed):
    peak = bytes_in + bytes_out + _scratch(leaf, scratch)
  shape, dtype = tuple(leaf.shape), leaf.dtype
  return LeafPlan(name, shape, dtype, bytes_in, bytes_out, peak)


def _scratch(leaf: tree.Computed, known: dict[Any, int]) -> int:
  """Returns the scratch bytes of the program that computes a leaf."""
  arrays = [x for x in tree.inputs(leaf) if hasattr(x, 'dtype')]
  compute = lambda *values: tree.evaluate(leaf, arrays, values)
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays]
  traced = jax.jit(compute).trace(*shapes)
  kind = str(traced.jaxpr)
  if kind not in known:
    analysis = traced.lower().compile().memory_analysis()
    known[kind] = 0 if analysis is None else analysis.temp_size_in_bytes
  return known[kind]


def _nbytes(leaf: Any) -> int:
  return int(leaf.size) * np.dtype(leaf.dtype).itemsize
