"""The names of shards, ``NAME-00001-of-00003.safetensors``, and of variants."""

import pathlib
import re

_SHARD = re.compile(r'(.*[-_.])([0-9]+)-of-([0-9]+)(\.safetensors|\.bin)')
_INDEX = re.compile(r'(.*)\.(safetensors|bin)\.index(\.([^.]+))?\.json')
# Names before a variant, as in model.fp16.safetensors.
_BASES = frozenset(
  {'model', 'diffusion_pytorch_model', 'pytorch_model', 'adapter_model'}
  | {'flax_model', 'pytorch_lora_weights'}
)
_MOST = 100_000
_SHOWN = 4


def series(file: pathlib.Path) -> tuple[str, str] | None:
  """Returns the stem and the number of shards in the name of a shard."""
  shard = _SHARD.fullmatch(file.name)
  return (shard[1], shard[3]) if shard else None


def complete(
  folder: pathlib.Path, files: list[pathlib.Path]
) -> tuple[pathlib.Path, ...]:
  """Returns the shards of one checkpoint, all of which must be there."""
  shard = _SHARD.fullmatch(files[0].name)
  if shard is None:
    return (files[0],)
  stem, digits, total, suffix = shard.groups()
  if int(total) > _MOST:
    raise ValueError(
      f'load: {files[0]} is one of {int(total)} shards by its name: rename it'
    )
  present = {file.name for file in files}
  # TensorFlow counts from 0, Hugging Face from 1.
  names = [
    f'{stem}{i:0{len(digits)}d}-of-{total}{suffix}'
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


def group(file: pathlib.Path) -> str:
  """Returns a name that all shards of a checkpoint share."""
  found = series(file)
  return '{}*-of-{}'.format(*found) if found else file.stem


def variant(file: pathlib.Path) -> str | None:
  """Returns the variant in the name of a file, a shard or an index.

  It is ``fp16`` in ``model.fp16.safetensors``,
  ``model.fp16-00001-of-00002.safetensors`` and
  ``model.safetensors.index.fp16.json``.
  """
  index = _INDEX.fullmatch(file.name)
  if index and index[4] and index[1] in _BASES:
    return index[4]
  shard = _SHARD.fullmatch(file.name)
  stem = index[1] if index else shard[1].rstrip('-_.') if shard else file.stem
  base, _, found = stem.partition('.')
  return found if base in _BASES and found not in ('', 'safetensors') else None


def is_index(file: pathlib.Path) -> bool:
  """Returns True for the name of an index of shards."""
  return _INDEX.fullmatch(file.name) is not None
