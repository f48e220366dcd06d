"""Finding the files of a checkpoint: one, or a series of shards."""

import collections
from collections.abc import Mapping
import json
import pathlib
import re
from typing import NamedTuple

from wsl.checkpoint._read import foreign, messages
from wsl.checkpoint._read.folders import messages as folder_messages
from wsl.checkpoint._read.folders import shard_names

SINGLE = folder_messages.SINGLE
INDEX = folder_messages.INDEX
# The suffixes of each format, in the order of preference.
_SUFFIXES = (
  ('.safetensors',),
  ('.bin', '.pt', '.pth', '.ckpt'),
  ('.msgpack',),
  ('.npz',),
  ('.gguf',),
)
_NO_WEIGHTS = ('optimizer', 'scheduler', 'scaler', 'rng_state', 'training_args')
_FLAX_STEP = re.compile('checkpoint_([0-9]{1,18})')
_SHOWN = 4
_LONGEST_NAME = 250  # characters of a file's name


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


def find(
  path: pathlib.Path, variant: str | None = None, step: int | None = None
) -> Sources:
  """Finds the files of a checkpoint, of any format.

  Args:
    path: a file, an index or a folder.
    variant: as in ``model.VARIANT.safetensors``; ``None`` takes the files
      without one, or the only variant.
    step: the step of a folder that Flax wrote without Orbax, files
      ``checkpoint_STEP``; ``None`` takes the newest.

  Raises:
    FileNotFoundError: if there are no files, or none of the variant or step.
    ValueError: if an index is damaged.
  """
  if step is not None:
    return _of_step(path, step)
  if shard_names.is_index(path) and path.is_file():
    return _indexed(path)
  if not path.is_dir():
    return Sources(path, (path,))
  # One file before an index, as transformers does: a save that goes from one
  # layout to the other is seen by all readers at the same rename or removal.
  if variant is None and (path / SINGLE).is_file():
    return Sources(path, (path / SINGLE,))
  if variant is None and (path / INDEX).is_file():
    return _indexed(path / INDEX)
  held = sorted(path.iterdir())
  for suffixes in _SUFFIXES:
    files = [x for x in held if x.suffix in suffixes and _is_weights(x)]
    indices = [
      x for x in held if shard_names.is_index(x) and suffixes[0] in x.suffixes
    ]
    if not files and not indices:
      continue
    chosen = _of_variant(path, [*files, *indices], variant)
    files = [file for file in files if file in chosen]
    indices = [index for index in indices if index in chosen]
    if len(indices) == 1:
      return _indexed(indices[0])
    groups = {shard_names.group(file) for file in files}
    if len(groups) == 1 and not indices:
      return Sources(path, shard_names.complete(path, files))
    message = folder_messages.several(path, files, indices, sorted(groups))
    raise FileNotFoundError(message)
  if _flax_steps(path):
    return _of_step(path, None)
  raise FileNotFoundError(folder_messages.no_files(path, held))


def _flax_steps(folder: pathlib.Path) -> dict[int, pathlib.Path]:
  """Returns the files ``checkpoint_STEP`` by their steps."""
  found = ((_FLAX_STEP.fullmatch(x.name), x) for x in folder.iterdir())
  return {int(name[1]): x for name, x in found if name and x.is_file()}


def _of_step(folder: pathlib.Path, step: int | None) -> Sources:
  """Returns the file of a step of Flax."""
  steps = _flax_steps(folder) if folder.is_dir() else {}
  if not steps:
    raise ValueError(
      f'load: {folder} is no folder of Orbax, and has neither steps nor items: '
      'leave step= out'
    )
  chosen = max(steps) if step is None else step
  if chosen not in steps:
    listed = messages.listed(sorted(steps)[-_SHOWN:])
    raise FileNotFoundError(
      f'load: {folder} has no step {chosen}, its steps are {listed}: check the '
      'path'
    )
  return Sources(folder, (steps[chosen],))


def _is_weights(file: pathlib.Path) -> bool:
  """Returns False for the files that trainers put beside the weights."""
  return not file.name.startswith(_NO_WEIGHTS)


def _of_variant(
  folder: pathlib.Path, files: list[pathlib.Path], variant: str | None
) -> list[pathlib.Path]:
  """Returns the files of a variant, or those without one."""
  found = {file: shard_names.variant(file) for file in files}
  present = set(found.values())
  listed = messages.listed(sorted(v for v in present if v is not None))
  if variant is None and None not in present and len(present) > 1:
    raise FileNotFoundError(
      f'load: {folder} holds the variants {listed}: choose one by variant='
    )
  if variant is None and None not in present:
    return files
  if variant not in present:
    raise FileNotFoundError(
      f'load(variant={variant!r}): {folder} holds the variants {listed}: give '
      'one of them'
    )
  return [file for file in files if found[file] == variant]


def read_index(path: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
  """Returns the shard of each name, and the strings in the metadata.

  Raises:
    ValueError: if the file is damaged or of another format.
  """
  messages.check_regular(path)
  if foreign.recognise(path) not in (None, foreign.JSON):
    raise foreign.error(path) or messages.damaged(path, 'it is no index')
  suffix = '.bin' if '.bin' in path.suffixes else '.safetensors'
  try:
    # Pairs keep a name that occurs twice.
    content = dict(json.loads(path.read_bytes(), object_pairs_hook=tuple))
    pairs = content['weight_map']
    shard_of = dict(pairs)
    sound = isinstance(pairs, tuple)
    sound &= all(_is_shard(name, suffix) for name in set(shard_of.values()))
    metadata = dict(content.get('metadata') or {})
  except (KeyError, TypeError, ValueError, RecursionError):
    sound = False
  if not sound:
    raise messages.damaged(
      path, f'it does not map names to files beside it, NAME{suffix}'
    )
  if len(shard_of) < len(pairs):
    counts = collections.Counter(name for name, _ in pairs)
    twice = messages.quote(counts.most_common(1)[0][0])
    raise messages.damaged(path, f'it has the name {twice} twice')
  return shard_of, {k: v for k, v in metadata.items() if isinstance(v, str)}


def _is_shard(name: object, suffix: str) -> bool:
  """Returns True for the name of a file with the suffix, without a folder.

  A name with a folder in it could point outside the checkpoint, and a save over
  the checkpoint removes the files that its index names.
  """
  return (
    isinstance(name, str)
    and name.endswith(suffix)
    and name != suffix
    and len(name) <= _LONGEST_NAME
    and name.isprintable()
    and not set('/\\').intersection(name)
  )


def _indexed(index: pathlib.Path) -> Sources:
  """Returns the shards that an index names, all of which must be there."""
  shard_of, metadata = read_index(index)
  places = {}
  for shard in dict.fromkeys(shard_of.values()):
    places[shard] = index.parent / shard
    if not places[shard].is_file():
      raise FileNotFoundError(
        f'load: shard {shard}, which {index} names, is missing or no file: '
        'copy it there'
      )
  files = tuple(places.values())
  file_of = {name: places[shard] for name, shard in shard_of.items()}
  series = {shard_names.series(file) for file in files} - {None}
  for file in sorted(index.parent.iterdir()):
    if file not in files and shard_names.series(file) in series:
      raise ValueError(
        f'load: shard {file.name} is not in {index}: copy the index again, or '
        'remove the index to load all shards'
      )
  return Sources(index, files, file_of, metadata)
