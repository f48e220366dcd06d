"""The content of the files of a save: headers and leaves in file order."""

from collections.abc import Container, Mapping, Sequence
import dataclasses
import functools
import json
from typing import Any

from wsl.checkpoint import _digests, _format
from wsl.checkpoint._read import foreign


@dataclasses.dataclass(frozen=True)
class File:
  """A file to write.

  Attributes:
    leaves: the leaves in file order.
    notes: its metadata.
    checksums: whether the metadata holds a hash of each leaf.
  """

  leaves: dict[str, Any]
  notes: dict[str, str]
  checksums: bool

  @functools.cached_property
  def header(self) -> bytes:
    """The header, with zeros in place of hashes.

    Raises:
      ValueError: if it is longer than the format allows.
    """
    header = self.header_with({})
    if len(header) - 8 > foreign.LONGEST_HEADER:
      raise ValueError(
        f'save: a header of {len(self.leaves)} leaves takes '
        f'{_format.format_bytes(len(header))}, safetensors allows '
        f'{_format.format_bytes(foreign.LONGEST_HEADER)}: give shard_bytes='
      )
    return header

  @functools.cached_property
  def payload(self) -> int:
    """The bytes of all leaves."""
    leaves = self.leaves.values()
    return sum(_format.nbytes(x.dtype, x.shape) for x in leaves)

  def header_with(self, digests: Mapping[str, str]) -> bytes:
    """Returns the header with hashes, which is as long as without them."""
    notes = self.notes
    if self.checksums:
      notes = notes | _digests.encode(self.leaves, digests)
    specs = {name: (x.dtype, x.shape) for name, x in self.leaves.items()}
    return _format.encode(specs, notes)

  def payload_of(self, names: Container[str]) -> int:
    """Returns the bytes of the leaves with one of the names."""
    leaves = (x for name, x in self.leaves.items() if name in names)
    return sum(_format.nbytes(x.dtype, x.shape) for x in leaves)


def group(
  leaves: Mapping[str, Any],
  notes: dict[str, str],
  *,
  shard_bytes: int | None,
  checksums: bool,
) -> list[File]:
  """Assigns the leaves to files, in order, by the payload of a shard."""
  groups: list[dict[str, Any]] = [{}]
  room = shard_bytes
  known: set[Any] = set()
  for name, leaf in leaves.items():
    if name == _format.METADATA or leaf.dtype not in known:
      _format.code(name, leaf.dtype)
      known.add(leaf.dtype)
    if room is not None:
      size = _format.nbytes(leaf.dtype, leaf.shape)
      if size > room and groups[-1]:
        groups.append({})
        room = shard_bytes or 0
      room -= size
    groups[-1][name] = leaf
  if shard_bytes is not None and not leaves:
    return []
  return [File(_by_width(held), notes, checksums) for held in groups]


def index(
  files: Sequence[File], names: Sequence[str], notes: Mapping[str, str]
) -> str:
  """Returns the index of shards as JSON."""
  size = sum(file.payload for file in files)
  shard_of = {n: shard for f, shard in zip(files, names) for n in f.leaves}
  return json.dumps(
    {'metadata': {**notes, 'total_size': size}, 'weight_map': shard_of},
    indent=2,
    ensure_ascii=False,
  )


def _by_width(leaves: dict[str, Any]) -> dict[str, Any]:
  """Orders leaves by item size, widest first.

  Each tensor then starts at a multiple of its item size, since the payload
  starts at a multiple of 64 bytes.
  """
  order = sorted(leaves, key=lambda name: -leaves[name].dtype.itemsize)
  return {name: leaves[name] for name in order}
