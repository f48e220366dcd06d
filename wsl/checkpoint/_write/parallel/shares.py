"""The regions of a leaf that each process writes.

A region is written by one of the processes that hold it: the one with the
fewest bytes so far. Every process computes the same assignment.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import mesh
from wsl.checkpoint._read import regions

# Shorter runs, if they are many, are brought together before they are written.
_RUN = 1 << 12
_MANY = 64


class Part(NamedTuple):
  """A region that this process writes.

  Attributes:
    runs: its contiguous parts.
    values: its entries, an array of one device or of the host.
  """

  runs: regions.Runs
  values: Any


def own(leaf: Any, loads: list[int]) -> list[Part]:
  """Returns the regions that this process writes, and adds to the loads.

  Args:
    leaf: an array, of which each process has all entries or its shards.
    loads: the bytes that each process has been given; changed.
  """
  leaf = _in_long_runs(leaf)
  this = jax.process_index()
  if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
    process = min(range(len(loads)), key=loads.__getitem__)
    loads[process] += leaf.nbytes
    whole = regions.Runs(np.zeros(1, np.int64), leaf.size)
    return [Part(whole, leaf)] if process == this else []
  held = {
    regions.key(leaf.shape, shard.index): shard.data
    for shard in leaf.addressable_shards
  }
  found = []
  for bounds, index, processes in _holders(leaf.sharding, leaf.shape):
    process = min(processes, key=loads.__getitem__)
    extent = regions.extent(bounds)
    loads[process] += math.prod(extent) * leaf.dtype.itemsize
    if process == this:
      found.append(Part(regions.runs(leaf.shape, index), held[bounds]))
  return found


@functools.lru_cache(1 << 10)
def _holders(
  sharding: jax.sharding.Sharding, shape: tuple[int, ...]
) -> list[tuple[Any, regions.Index, list[int]]]:
  """Lists each region: its bounds, its index and the processes that hold it."""
  found: dict[Any, tuple[regions.Index, set[int]]] = {}
  device: Any
  for device, index in sharding.devices_indices_map(shape).items():
    assert index is not None
    _, processes = found.setdefault(regions.key(shape, index), (index, set()))
    processes.add(device.process_index)
  return [(k, index, sorted(held)) for k, (index, held) in found.items()]


def _in_long_runs(leaf: Any) -> Any:
  """Returns a leaf whose regions are not many short runs.

  Columns of a few bytes would take a call of the system for each row. The
  devices exchange them for rows; where the rows are not divisible by the number
  of devices, every process gathers the leaf.
  """
  if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
    return leaf
  _, index, _ = _holders(leaf.sharding, leaf.shape)[0]
  starts, length = regions.runs(leaf.shape, index)
  if length * leaf.dtype.itemsize >= _RUN or len(starts) <= _MANY:
    return leaf
  where = leaf.sharding
  even = leaf.shape[0] % where.num_devices == 0
  if even and isinstance(where, jax.sharding.NamedSharding):
    return _rows(where.mesh)(leaf)
  return mesh.gather(leaf)


@functools.lru_cache(16)
def _rows(where: jax.sharding.Mesh) -> Any:
  """Returns the compiled identity that shards rows over all devices."""
  spec = jax.sharding.PartitionSpec(where.axis_names)
  rows = jax.sharding.NamedSharding(where, spec)
  return jax.jit(lambda x: x, out_shardings=rows)
