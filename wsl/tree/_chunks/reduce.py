"""Reductions and samples of leaves in files, chunk by chunk."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl.tree import _nodes
from wsl.tree._chunks import cut, programs, stream, windows


def combine(
  leaves: Sequence[_nodes.Computed],
  entries: programs.Entries,
  operator: Callable[[Any, Any], Any],
) -> Any:
  """Reduces each chunk of the leaves' operands, and combines the results.

  Args:
    leaves: expressions whose last kernel reduces; ``is_reducible`` is true.
    entries: what it states of the kernel.
    operator: combines two results, float64 or int64 on the host.
  """
  items = [_item(f'{i}', leaf, entries) for i, leaf in enumerate(leaves)]
  results = stream.run(items, stream.CHUNK_BYTES)
  return functools.reduce(operator, (on_host(part) for _, part in results))


def is_reducible(leaf: Any, entries: programs.Entries | None) -> bool:
  """Returns True if a reduction reads files that can be read in chunks."""
  # The size of the result is not asked for: its trace is not used again.
  if entries is None or not _reads_files(leaf):
    return False
  return cut.is_cut(_item('', leaf, entries), stream.CHUNK_BYTES)


def on_host(part: Any) -> np.ndarray:
  """Returns a result as float64 or int64, on the host."""
  whole = jnp.issubdtype(part.dtype, np.integer)
  return np.asarray(part, np.int64 if whole else np.float64)


def sample(leaf: Any, spans: Sequence[tuple[int, int]]) -> np.ndarray | None:
  """Returns a stack ``[T, ...]`` at some positions, ``[T, s]``.

  None if the stack is not in files that can be read in chunks.
  """
  item = windows.Item('', leaf, tuple(leaf.shape[1:]), spans=spans)
  if not in_files(leaf) or not cut.is_cut(item, stream.CHUNK_BYTES):
    return None
  parts = [
    np.asarray(part)[:, : window.filled]
    for window, part in stream.run([item], stream.CHUNK_BYTES)
    if isinstance(window, windows.Window)
  ]
  return np.concatenate(parts, axis=1)


def _item(
  name: str, leaf: _nodes.Computed, entries: programs.Entries
) -> windows.Item:
  """Returns the item of a reduction: positions are those of its operands."""
  shape = tuple(leaf.operands[0].shape[entries.lead :])
  return windows.Item(name, leaf, shape, entries)


def in_files(leaf: Any, *, above: int = 0) -> bool:
  """Returns True if a leaf is computed from files that are read in slices.

  A method that needs a statistic of each leaf computes it by another pass over
  such a leaf, and then runs over chunks.

  Args:
    leaf: an array, or a leaf on demand.
    above: the number of entries that the leaf exceeds.

  Returns:
    Whether any of its inputs is a stored leaf with ``read_into``.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import tree
    >>> in_files(jnp.ones(2)), in_files(tree.defer(jnp.ones(2)))
    (False, False)
  """
  return _reads_files(leaf) and leaf.size > above


def _reads_files(leaf: Any) -> bool:
  """Returns True if an input of a leaf is a file that is read in slices."""
  computed = isinstance(leaf, _nodes.Computed)
  inputs = leaf.linear[1] if computed else [leaf]
  return any(
    isinstance(x, _nodes.Stored) and x.read_into is not None for x in inputs
  )
