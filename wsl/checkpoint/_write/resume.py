"""Resuming a killed save by the hashes of the leaves that it has finished.

The first line of a journal identifies the save: its headers, hence names,
shapes, dtypes, metadata and shards, and the size and time of each input file.
Each further line is the SHA-256 of a finished leaf, in the order of writing.
The kernels that compute the leaves are not identified: the last finished leaf
is computed a second time and compared.
"""

from collections.abc import Iterator, Sequence
import hashlib
import itertools

import numpy as np

from wsl import tree
from wsl.checkpoint import _digests, _format
from wsl.checkpoint._read import stored
from wsl.checkpoint._write import files as files_lib
from wsl.checkpoint._write import pieces
from wsl.checkpoint._write import stage as stage_lib

_CHUNK = 1 << 20


def identify(files: Sequence[files_lib.File]) -> str:
  """Returns the first line of the journal of a save."""
  digest = hashlib.sha256()
  origins = set()
  for file in files:
    digest.update(file.header)
    for x in itertools.chain(*map(tree.inputs, file.leaves.values())):
      fetch = getattr(x, 'fetch', None)
      if isinstance(fetch, stored.Fetch) and fetch.file is not None:
        origins.add((str(fetch.file.path.absolute()), fetch.file.stamp))
  digest.update(repr(sorted(origins)).encode())
  return digest.hexdigest()


def finished(
  stage: stage_lib.Stage, files: Sequence[files_lib.File]
) -> dict[str, str]:
  """Returns the hashes of the leaves that a killed save has finished.

  A journal is opened if there is none of the same save.

  Args:
    stage: the folder of the unfinished files.
    files: the files of this save.

  Returns:
    The hashes of the first leaves by name, whose bytes are on the disk; empty
    if the last of them is computed differently today.
  """
  identity = identify(files)
  found = _verified(stage, files, identity)
  if found:
    name, digest = list(found.items())[-1]
    leaf = next(x.leaves[name] for x in files if name in x.leaves)
    if _hash(pieces.of({name: leaf})) != digest:
      found = {}
  if not found:
    stage.clear()
  lines = [identity, *found.values()]
  stage.journal.write_text(''.join(f'{line}\n' for line in lines))
  return found


def _verified(
  stage: stage_lib.Stage, files: Sequence[files_lib.File], identity: str
) -> dict[str, str]:
  """Returns the hashes in the journal that the bytes on the disk have."""
  try:
    # A line without an end was cut by the kill.
    first, *lines = stage.journal.read_text('ascii').split('\n')[:-1]
  except (OSError, ValueError):
    return {}
  found: dict[str, str] = {}
  if first != identity:
    return found
  for (name, digest), line in zip(_on_disk(stage, files), lines):
    if digest != line:
      break
    found[name] = digest
  return found


def _on_disk(
  stage: stage_lib.Stage, files: Sequence[files_lib.File]
) -> Iterator[tuple[str, str]]:
  """Yields the name of each complete leaf with the hash of its bytes."""
  for i, file in enumerate(files):
    if not stage.part(i).exists():
      return
    with open(stage.part(i), 'rb') as part:
      part.seek(len(file.header))
      for name, leaf in file.leaves.items():
        digest, left = _digests.new(), _format.nbytes(leaf.dtype, leaf.shape)
        while data := part.read(min(left, _CHUNK)):
          digest.update(data)
          left -= len(data)
        if left:
          return
        yield name, digest.hexdigest()


def _hash(parts: Iterator[pieces.Piece]) -> str:
  """Returns the hash of a leaf."""
  digest = _digests.new()
  for piece in parts:
    digest.update(piece.values.view(np.uint8))
  return str(digest.hexdigest())
