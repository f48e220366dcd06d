"""Small leaves that follow each other in a file, read together."""

from collections.abc import Iterator
import itertools
import math
from typing import Any

import jax
import numpy as np

from wsl import tree, types
from wsl.checkpoint._read import file_bytes, stored

# Leaves of at most this size are read in blocks of at most that size.
_SMALL = 1 << 12
_BLOCK = 1 << 16


def read(params: types.Tree) -> types.Tree:
  """Reads all leaves; small neighbours in a file are read together.

  A leaf of a few bytes costs as much as one of many pages: a look at the file's
  stamp, a system call, a check. Small leaves that follow each other are views
  of one block, of at most ``_BLOCK`` bytes.
  """
  leaves, structure = jax.tree.flatten(params)
  result: list[Any] = [None] * len(leaves)
  small: dict[int, list[tuple[int, int]]] = {}
  for i, leaf in enumerate(leaves):
    fetch = getattr(leaf, 'fetch', None)
    if isinstance(fetch, stored.Fetch) and _is_small(fetch):
      small.setdefault(id(fetch.file), []).append((fetch.start, i))
    else:
      result[i] = tree.read(leaf)
  for places in small.values():
    for block in _blocks(sorted(places), leaves):
      for i, value in zip(block, _read_block([leaves[i].fetch for i in block])):
        result[i] = value
  return jax.tree.unflatten(structure, result)


def _is_small(fetch: stored.Fetch) -> bool:
  """Returns True for a few bytes of a file that stay on the host."""
  alone = fetch.whole is None and fetch.sharding is None
  return alone and fetch.nbytes <= _SMALL


def _blocks(
  places: list[tuple[int, int]], leaves: list[Any]
) -> Iterator[list[int]]:
  """Groups leaves that follow each other in a file, by their bytes."""
  block: list[int] = []
  first = end = -1
  for start, i in places:
    nbytes = leaves[i].fetch.nbytes
    if start != end or end + nbytes - first > _BLOCK:
      if block:
        yield block
      block, first = [], start
    block.append(i)
    end = start + nbytes
  yield block


def _read_block(fetches: list[stored.Fetch]) -> Iterator[np.ndarray]:
  """Reads leaves that follow each other, in one block."""
  first, last = fetches[0], fetches[-1]
  file: Any = first.file
  block = file_bytes.aligned(last.start + last.nbytes - first.start)
  file.read_into(block, first.start, name=first.name)
  flat = block.data
  start = 0
  for dtype, group in itertools.groupby(fetches, key=lambda x: x.dtype):
    run = list(group)
    size = sum(math.prod(x.shape) for x in run)
    values = np.frombuffer(flat, dtype, size, start)
    sound = not first.options.finite or tree.all_finite(values)
    for fetch in run:
      size = math.prod(fetch.shape)
      values = fetch.shaped(np.frombuffer(flat, dtype, size, start))
      if not sound:
        fetch.check(values.reshape(-1), 0)
      yield values
      start += size * dtype.itemsize
