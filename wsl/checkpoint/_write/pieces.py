"""Leaves as contiguous pieces, in the order in which they are written."""

from collections.abc import Iterator, Mapping
import functools
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import mesh, tree
from wsl.checkpoint._read import regions

# The pieces of a sharded leaf have at least this size.
_BLOCK_BYTES = 1 << 20
# Shorter runs are not listed: the list would be as large as the leaf.
_RUN_BYTES = 256


class Piece(NamedTuple):
  """Contiguous entries of a leaf.

  Attributes:
    name: the leaf's name.
    values: ``[n]``; not changed while it is written, which ends before the
      piece after the next one is asked for.
    last: whether the leaf ends with them.
  """

  name: str
  values: np.ndarray
  last: bool


def of(
  leaves: Mapping[str, Any], chunk_bytes: int = tree.CHUNK_BYTES
) -> Iterator[Piece]:
  """Reads or computes leaves in order, and yields their pieces.

  Args:
    leaves: arrays or leaves on demand, by name.
    chunk_bytes: the size of each operand of a chunk, see ``tree.stream``.

  Raises:
    ValueError: if a leaf has another shape or dtype than it declares.
  """
  if all(isinstance(x, np.ndarray) for x in leaves.values()):
    # There is nothing to read ahead or to compute.
    for name, x in leaves.items():
      yield Piece(name, np.asarray(x, order='C').reshape(-1), True)
    return
  for sharded, group in itertools.groupby(leaves, lambda n: _held(leaves[n])):
    if sharded:
      for name in group:
        yield from _of_shards(name, leaves[name])
    else:
      part = {name: leaves[name] for name in group}
      yield from _of_stream(part, chunk_bytes)


def _of_stream(leaves: Mapping[str, Any], chunk_bytes: int) -> Iterator[Piece]:
  """Yields the pieces of leaves that are computed in order."""
  done = 0
  stream = tree.stream(leaves, chunk_bytes=chunk_bytes, read=_checked)
  for name, values in stream:
    done += values.size
    last = done == leaves[name].size
    yield Piece(name, values, last)
    done = 0 if last else done


def _held(leaf: Any) -> bool:
  """Returns True for an array that is sharded over devices of this process."""
  if not isinstance(leaf, jax.Array) or leaf.sharding.num_devices == 1:
    return False
  return leaf.is_fully_addressable and not leaf.is_fully_replicated


def _of_shards(name: str, leaf: jax.Array) -> Iterator[Piece]:
  """Yields a sharded array in C order, without a copy of the whole array.

  All shards have one shape, so that their runs have one length n. The runs tile
  the array: in the order of their starts, the k-th begins at k n.
  """
  if not leaf.size:
    yield Piece(name, np.empty(0, leaf.dtype), True)
    return
  found = {regions.key(leaf.shape, x.index): x for x in leaf.addressable_shards}
  shards = list(found.values())
  for shard in shards:
    shard.data.copy_to_host_async()
  runs = [regions.runs(leaf.shape, x.index) for x in shards]
  if runs[0].length * leaf.dtype.itemsize < _RUN_BYTES:
    yield Piece(name, host(leaf).reshape(-1), True)
    return
  count, length = len(runs[0].starts), runs[0].length

  @functools.cache
  def lines(i: int) -> np.ndarray:
    return np.asarray(shards[i].data, order='C').reshape(count, length)

  order = np.argsort(np.concatenate([run.starts for run in runs]))
  step = max(_BLOCK_BYTES // (length * leaf.dtype.itemsize), 1)
  for k in range(0, len(order), step):
    which, place = np.divmod(order[k : k + step], count)
    if len(which) == 1:
      values = lines(int(which[0]))[place[0]]
    else:
      values = np.empty((len(which), length), leaf.dtype)
      for i in np.unique(which):
        at = np.flatnonzero(which == i)
        values[at] = lines(int(i))[place[at]]
    yield Piece(name, values.reshape(-1), k + step >= len(order))


def _checked(name: str, leaf: Any) -> np.ndarray:
  """Reads a whole leaf, and checks it."""
  value = tree.read(leaf)
  check(name, leaf, value)
  local = not isinstance(value, jax.Array) or value.is_fully_addressable
  if not local and not tree.spans_processes(leaf):
    # Only this process reads the leaf: it would wait for the others.
    raise ValueError(
      f"save: leaf '{name}' is sharded over processes, and its fetch has no "
      'attribute sharding that says so: add it'
    )
  return host(value)


def check(name: str, leaf: Any, value: Any) -> None:
  """Checks that a value has the shape and dtype that its leaf declares."""
  if value.shape != leaf.shape or value.dtype != leaf.dtype:
    raise ValueError(
      f"save: leaf '{name}' promised {leaf.dtype}{list(leaf.shape)} and is "
      f'{value.dtype}{list(value.shape)}'
    )


def host(leaf: Any) -> np.ndarray:
  """Reads a leaf; all processes take part if it spans them."""
  return np.asarray(mesh.gather(leaf), order='C')
