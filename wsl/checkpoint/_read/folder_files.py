"""Finding the files of a safetensors checkpoint: one, or a series of shards."""

from collections.abc import Mapping
import json
import pathlib
import re
from typing import NamedTuple

from wsl.checkpoint._read import foreign, messages

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
_SHARD = re.compile(r'(.*[-_.])([0-9]+)-of-([0-9]+)\.safetensors')
_INDEX_NAME = re.compile(r'\.index(\.[^.]+)?\.json$')
_SHOWN = 4


class Sources(NamedTuple):
  """The files of a checkpoint, and the content of its index if it has one.

  Attributes:
    origin: the index, the folder or the file, as error messages name it.
    files: the files to read.
    file_of: the file of each leaf by the index.
    metadata: the strings of the index.
  """

  origin: pathlib.Path
  files: tuple[pathlib.Path, ...]
  file_of: dict[str, pathlib.Path] | None = None
  metadata: Mapping[str, str] = {}


def find(path: pathlib.Path) -> Sources:
  """Finds the files of a checkpoint."""
  if _INDEX_NAME.search(path.name) and path.is_file():
    return _indexed(path)
  if not path.is_dir():
    return Sources(path, (path,))
  # One file before an index, as transformers does: a save that goes from one
  # layout to the other is seen by all readers at the same rename or removal.
  if (path / SINGLE).is_file():
    return Sources(path, (path / SINGLE,))
  if (path / INDEX).is_file():
    return _indexed(path / INDEX)
  files = sorted(path.glob('*.safetensors'))
  indices = sorted(path.glob('*.safetensors.index*.json'))
  if len(indices) == 1:
    return _indexed(indices[0])
  groups: dict[str, list[pathlib.Path]] = {}
  for file in files:
    series = _series(file)
    group = '{}*-of-{}'.format(*series) if series else file.stem
    groups.setdefault(group, []).append(file)
  if len(groups) == 1 and not indices:
    return Sources(path, _complete(path, files))
  raise FileNotFoundError(_no_files(path, files, indices, sorted(groups)))


def read_index(path: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
  """Returns the shard of each name, and the strings in the metadata.

  Raises:
    ValueError: if the file is damaged or of another format.
  """
  messages.check_regular(path)
  if foreign.recognise(path) not in (None, foreign.JSON):
    raise foreign.error(path) or messages.damaged(path, 'it is no index')
  try:
    # Pairs keep a name that occurs twice.
    content = dict(json.loads(path.read_bytes(), object_pairs_hook=tuple))
    pairs = content['weight_map']
    shard_of = dict(pairs)
    sound = isinstance(pairs, tuple)
    sound &= all(map(_is_shard, set(shard_of.values())))
    metadata = dict(content.get('metadata') or {})
  except (KeyError, TypeError, ValueError, RecursionError):
    sound = False
  if not sound:
    raise messages.damaged(
      path, 'it does not map names to files beside it, NAME.safetensors'
    )
  if len(shard_of) < len(pairs):
    names = [name for name, _ in pairs]
    twice = messages.quote(next(n for n in names if names.count(n) > 1))
    raise messages.damaged(path, f'it has the name {twice} twice')
  return shard_of, {k: v for k, v in metadata.items() if isinstance(v, str)}


def _is_shard(name: object) -> bool:
  """Returns True for the name of a safetensors file, without a folder.

  A name with a folder in it could point outside the checkpoint, and a save over
  the checkpoint removes the files that its index names.
  """
  return (
    isinstance(name, str)
    and name.endswith('.safetensors')
    and name != '.safetensors'
    and not set('/\\\0').intersection(name)
  )


def _no_files(
  folder: pathlib.Path,
  files: list[pathlib.Path],
  indices: list[pathlib.Path],
  groups: list[str],
) -> str:
  """Returns the error message for a folder that is not a checkpoint."""
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
    found = foreign.recognise(file) if weights and file.is_file() else None
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


def _series(file: pathlib.Path) -> tuple[str, str] | None:
  """Returns the stem and the number of shards in the name of a shard."""
  shard = _SHARD.fullmatch(file.name)
  return (shard[1], shard[3]) if shard else None


def _complete(
  folder: pathlib.Path, files: list[pathlib.Path]
) -> tuple[pathlib.Path, ...]:
  """Returns the shards of one checkpoint, all of which must be there."""
  shard = _SHARD.fullmatch(files[0].name)
  if shard is None:
    return (files[0],)
  stem, digits, total = shard.groups()
  present = {file.name for file in files}
  # TensorFlow counts from 0, Hugging Face from 1.
  names = [
    f'{stem}{i:0{len(digits)}d}-of-{total}.safetensors'
    for i in range(int(total) + 1)
  ]
  wanted = names[:-1] if names[0] in present else names[1:]
  missing = [name for name in wanted if name not in present]
  if missing:
    raise FileNotFoundError(
      f'load: {folder} lacks {len(missing)} of {int(total)} shards, '
      f'{missing[:_SHOWN]}: copy them there'
    )
  if surplus := sorted(present - set(wanted)):
    raise ValueError(
      f'load: {folder} has all {int(total)} shards and {surplus[:_SHOWN]}: '
      'remove what does not belong to them'
    )
  return tuple(folder / name for name in wanted)


def _indexed(index: pathlib.Path) -> Sources:
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
  series = {_series(file) for file in files} - {None}
  for file in sorted(index.parent.glob('*.safetensors')):
    if file not in files and _series(file) in series:
      raise ValueError(
        f'load: shard {file.name} is not in {index}: copy the index again, or '
        'remove the index to load all shards'
      )
  return Sources(index, files, file_of, metadata)
