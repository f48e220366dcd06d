"""Hashes of the leaves of a step of Orbax, one for each shard.

The custom metadata of an item maps ``wsl.sha256`` to an object that maps the
name of each leaf to its shards: the first and the last indices of each and the
SHA-256 of its bytes in C order, in hexadecimal. A leaf is hashed by shards so
that no process gathers it, and so that a part can be verified without the rest.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from wsl import tree, types
from wsl.checkpoint import _digests

_FILE = '_METADATA'
_WORD = 32  # bytes of a hash


class Shard(NamedTuple):
  """A part of a leaf, ``[start, stop)`` on each axis, and its hash."""

  start: tuple[int, ...]
  stop: tuple[int, ...]
  digest: str

  @property
  def region(self) -> tuple[slice, ...]:
    """The slice of each axis."""
    return tuple(map(slice, self.start, self.stop))

  def overlaps(self, index: Sequence[slice]) -> bool:
    """Returns whether the shard has an entry in a region."""
    return all(
      (x.start or 0) < stop and (x.stop is None or start < x.stop)
      for x, start, stop in zip(index, self.start, self.stop)
    )

  def within(self, index: Sequence[slice]) -> tuple[slice, ...] | None:
    """Returns where the shard is in a region; None if it exceeds it."""
    first = [x.start or 0 for x in index]
    inside = all(
      a <= start and (x.stop is None or stop <= x.stop)
      for x, a, start, stop in zip(index, first, self.start, self.stop)
    )
    if not inside:
      return None
    return tuple(
      slice(start - a, stop - a)
      for a, start, stop in zip(first, self.start, self.stop)
    )


def of(values: Iterable[np.ndarray]) -> str:
  """Returns the hash of arrays, one after the other in C order."""
  found = _digests.new()
  for x in values:
    found.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8))
  return str(found.hexdigest())


def record(state: types.Tree) -> dict[str, Any]:
  """Returns the custom metadata of a state that is about to be saved.

  Each shard is hashed by the process that owns its first copy; every process
  of a multi-process run calls this.
  """
  parts = {name: list(_parts(x)) for name, x in tree.named(state).items()}
  own = [
    np.zeros(_WORD, np.uint8)
    if data is None
    else np.frombuffer(bytes.fromhex(of([data])), np.uint8)
    for part in parts.values()
    for _, _, data in part
  ]
  if jax.process_count() > 1 and own:
    from jax.experimental import multihost_utils

    # A hash is zero in all processes but one.
    own = list(multihost_utils.process_allgather(np.stack(own)).max(axis=0))
  words = iter(own)
  return {
    _digests.KEY: {
      name: [[*x[:2], np.asarray(next(words)).tobytes().hex()] for x in part]
      for name, part in parts.items()
    }
  }


def _parts(leaf: Any) -> Iterator[tuple[list[int], list[int], Any]]:
  """Yields the shards of a leaf: start, stop, and the data if hashed here."""
  if isinstance(leaf, jax.Array):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    owners: dict[Any, Any] = {}
    places = leaf.sharding.devices_indices_map(leaf.shape)
    for device, index in places.items():
      bounds = [x.indices(n)[:2] for x, n in zip(index, leaf.shape)]
      owners.setdefault(tuple(bounds), device)
    local = {shard.device: shard.data for shard in leaf.addressable_shards}
    for bounds, device in owners.items():
      data = local.get(device)
      start, stop = ([x[i] for x in bounds] for i in (0, 1))
      yield start, stop, None if data is None else np.asarray(data)
  else:
    x = np.asarray(leaf)
    yield [0] * x.ndim, list(x.shape), None if jax.process_index() else x


def read(caller: str, item: pathlib.Path) -> dict[str, list[Shard]]:
  """Returns the recorded shards of each leaf; empty if there are none.

  Raises:
    ValueError: if the record is malformed.
  """
  try:
    found = json.loads((item / _FILE).read_bytes())
  except (FileNotFoundError, ValueError, RecursionError):
    return {}  # from before 2024, or damaged: ``restore.describe`` says so
  try:
    notes = (found.get('custom_metadata') or {}).get(_digests.KEY) or {}
    return {
      name: [Shard(tuple(a), tuple(b), str(text)) for a, b, text in shards]
      for name, shards in notes.items()
    }
  except (ValueError, AttributeError, TypeError):
    raise ValueError(
      f'{caller}: {item} is damaged, copy it again: its hashes '
      f"'{_digests.KEY}' are malformed"
    ) from None


def verify(
  caller: str,
  item: pathlib.Path,
  shards: Mapping[str, Sequence[Shard]],
  leaves: Mapping[str, Any],
) -> None:
  """Verifies the recorded hashes of whole arrays in memory.

  Raises:
    ValueError: naming the first leaf that does not have its hash.
  """
  for name in (name for name in leaves if name in shards):
    values = np.asarray(leaves[name])
    for shard in shards[name]:
      if of([values[shard.region]]) != shard.digest:
        raise wrong(caller, name, item)


def wrong(caller: str, name: str, item: pathlib.Path) -> ValueError:
  """Returns the error for a leaf that does not have its hash."""
  return ValueError(
    f"{caller}: leaf '{name}' of {item} does not have the SHA-256 that the "
    'step records: copy it again, or take an earlier step'
  )
