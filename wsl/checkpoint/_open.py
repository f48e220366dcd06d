"""The files of a safetensors checkpoint: one, or shards with or without index.

Headers are read here, values are not: every leaf is on demand.
"""

from collections.abc import Iterable, Mapping
import pathlib
import re
from typing import NamedTuple, TypeAlias

import numpy as np

from wsl import tree
from wsl.checkpoint import _foreign, _format, _read_leaf

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
_SHARD = re.compile(r'(.*)-(\d+)-of-(\d+)\.safetensors')
_SHOWN = 4
Free: TypeAlias = list[np.ndarray] | None


class Files(NamedTuple):
  """The leaves of one or more files by name, and their metadata."""

  leaves: dict[str, tree.Stored]
  metadata: dict[str, str]


class _Sources(NamedTuple):
  """The files to read, the file of each leaf if an index tells, and its notes.

  ``origin`` is what error messages name: the index, or the folder.
  """

  origin: pathlib.Path
  files: tuple[pathlib.Path, ...]
  file_of: dict[str, pathlib.Path] | None = None
  metadata: Mapping[str, str] = {}


def open_files(path: pathlib.Path, *, finite: bool, free: Free) -> Files:
  """Opens a file, or the file or the shards of a folder.

  Args:
    path: a safetensors file, an index of shards, or a folder.
    finite: whether reading a value that is not finite is an error.
    free: see ``_read_leaf.Fetch``.

  Raises:
    FileNotFoundError: if there is no file, or a shard is missing.
    ValueError: if a file is damaged or of another format, or a leaf is in two
      files, or in a file and not in its index.
  """
  sources = _sources(path)
  headers = {file: _format.read_header(file) for file in sources.files}
  file_of = _join(headers)
  if sources.file_of is not None:
    _check_index(sources, file_of)
    file_of = sources.file_of
  notes = combine([sources.metadata, *(h.metadata for h in headers.values())])
  leaves = {}
  for name, file in file_of.items():
    entry, stamp = headers[file].entries[name], headers[file].stamp
    fetch = _read_leaf.Fetch(
      file, name, entry, stamp, finite, free, metadata=notes
    )
    leaves[name] = tree.Stored(fetch, entry.shape, entry.dtype)
  return Files(leaves, notes)


def combine(notes: Iterable[Mapping[str, str]]) -> dict[str, str]:
  """Merges metadata; a key with two different values is left out."""
  found: dict[str, str] = {}
  conflicts = set()
  for note in notes:
    for key, value in note.items():
      if found.setdefault(key, value) != value:
        conflicts.add(key)
  return {k: v for k, v in found.items() if k not in conflicts}


def read_index(path: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
  """Returns the shard of each name, and the strings in the metadata."""
  try:
    content, twice = _format.parse_json(path.read_text(encoding='utf-8'))
    shard_of = content['weight_map']
    # A name with a folder in it could point outside the checkpoint.
    sound = all(pathlib.Path(s).name == s for s in shard_of.values())
    metadata = dict(content.get('metadata') or {})
  except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
    sound = False
  if not sound:
    raise _format.damaged(path, 'it does not map names to files beside it')
  if twice is not None:
    raise _format.damaged(path, f"it has the name '{twice}' twice")
  return shard_of, {k: v for k, v in metadata.items() if isinstance(v, str)}


def _sources(path: pathlib.Path) -> _Sources:
  """Finds the files of a checkpoint."""
  if path.name.endswith('.index.json') and path.is_file():
    return _indexed(path)
  if not path.is_dir():
    return _Sources(path, (path,))
  if (path / INDEX).is_file():
    return _indexed(path / INDEX)
  if (path / SINGLE).is_file():
    return _Sources(path, (path / SINGLE,))
  files = sorted(path.glob('*.safetensors'))
  indices = sorted(path.glob('*.safetensors.index*.json'))
  if len(indices) == 1:
    return _indexed(indices[0])
  groups: dict[str, list[pathlib.Path]] = {}
  for file in files:
    shard = _SHARD.fullmatch(file.name)
    group = f'{shard[1]}-*-of-{shard[3]}' if shard else file.stem
    groups.setdefault(group, []).append(file)
  if len(groups) == 1 and not indices:
    return _Sources(path, _complete(path, files))
  raise FileNotFoundError(_no_files(path, files, indices, sorted(groups)))


def _no_files(
  folder: pathlib.Path,
  files: list[pathlib.Path],
  indices: list[pathlib.Path],
  groups: list[str],
) -> str:
  """Explains why a folder is not a checkpoint, by what it holds."""
  if indices:
    return (
      f'load: {folder} has several indices, '
      f'{[file.name for file in indices[:_SHOWN]]}: give one of them'
    )
  if any('-of-' in group for group in groups):
    return (
      f'load: {folder} holds several checkpoints, {groups[:_SHOWN]}: move the '
      'shards of one to a folder of their own'
    )
  if files:
    names = [file.name for file in files[:_SHOWN]]
    return (
      f'load: {folder} holds neither {INDEX} nor {SINGLE}, and '
      f'{len(files)} other safetensors files {names}: give one file'
    )
  for file in sorted(folder.iterdir()):
    weights = file.suffix in ('.bin', '.pt', '.pth', '.ckpt', '.pkl', '.npz')
    weights |= file.suffix in ('.msgpack', '.h5', '.keras', '.gguf', '.npy')
    weights |= file.name.startswith('checkpoint')  # Flax's, without Orbax
    found = _foreign.recognise(file) if weights and file.is_file() else None
    if found is not None:
      return (
        f'load: {folder} holds neither {INDEX} nor {SINGLE}; {file.name} is '
        f'{found.name}: {found.remedy}'
      )
  held = sorted(file.name for file in folder.iterdir())
  return (
    f'load: {folder} holds neither {INDEX} nor {SINGLE}, but '
    f'{held[:_SHOWN] or "nothing"}: give the folder or file of a checkpoint'
  )


def _complete(
  folder: pathlib.Path, files: list[pathlib.Path]
) -> tuple[pathlib.Path, ...]:
  """Returns the shards of one checkpoint, all of which must be there."""
  shard = _SHARD.fullmatch(files[0].name)
  if shard is None:
    return (files[0],)
  stem, digits, total = shard.groups()
  wanted = [
    f'{stem}-{i:0{len(digits)}d}-of-{total}.safetensors'
    for i in range(1, int(total) + 1)
  ]
  present = {file.name for file in files}
  missing = [name for name in wanted if name not in present]
  if missing:
    raise FileNotFoundError(
      f'load: {folder} lacks {len(missing)} of {int(total)} shards, '
      f'{missing[:_SHOWN]}: copy them there'
    )
  return tuple(folder / name for name in wanted)


def _indexed(index: pathlib.Path) -> _Sources:
  """Returns the shards that an index names, all of which must be there."""
  shard_of, metadata = read_index(index)
  file_of = {name: index.parent / shard for name, shard in shard_of.items()}
  files = tuple(dict.fromkeys(file_of.values()))
  for file in files:
    if not file.is_file():
      raise FileNotFoundError(
        f'load: shard {file.name}, which {index} names, is missing: copy it '
        'there'
      )
  return _Sources(index, files, file_of, metadata)


def _join(
  headers: Mapping[pathlib.Path, _format.Header],
) -> dict[str, pathlib.Path]:
  """Returns the file of each leaf, which must be in one file only."""
  file_of: dict[str, pathlib.Path] = {}
  for file, header in headers.items():
    for name in header.entries:
      if name in file_of:
        raise ValueError(
          f"load: leaf '{name}' is in both {file_of[name]} and {file.name}: "
          'remove one of them, or copy the checkpoint again'
        )
      file_of[name] = file
  return file_of


def _check_index(
  sources: _Sources, file_of: Mapping[str, pathlib.Path]
) -> None:
  """Checks that the index and the headers of the shards agree."""
  promised = sources.file_of or {}
  for name, file in promised.items():
    if file_of.get(name) != file:
      raise _format.damaged(
        sources.origin,
        f"shard {file.name} has no leaf '{name}', which the index promises",
      )
  for name, file in file_of.items():
    if name not in promised:
      raise ValueError(
        f"load: shard {file.name} has a leaf '{name}' that {sources.origin} "
        'omits: add it to the index, or remove the index to load all shards'
      )
