"""Puts the finished files of a save in place, and removes the old ones."""

from collections.abc import Sequence
import os
import pathlib
import secrets

from wsl.checkpoint._write import flush, space
from wsl.checkpoint._write import stage as stage_lib
from wsl.checkpoint._write import target as target_lib


def shard_names(target: target_lib.Target, number: int) -> list[str]:
  """Returns names for shards that no file in the folder has.

  They are those of Hugging Face if the folder has no index. Beside an index
  they hold a random number, so that a reader who has read the old index does
  not find new shards by it.
  """
  stem = 'model'
  while True:
    names = [
      f'{stem}-{i:05d}-of-{number:05d}.safetensors'
      for i in range(1, number + 1)
    ]
    taken = any((target.parent / name).exists() for name in names)
    if not taken and (stem != 'model' or not target.index.exists()):
      return names
    stem = f'model-{secrets.token_hex(4)}'


def swap(
  stage: stage_lib.Stage,
  shards: Sequence[str] | None,
  old: Sequence[pathlib.Path],
) -> None:
  """Makes the new checkpoint visible at once, then removes the old one.

  Args:
    stage: holds the finished files.
    shards: the names of the shards; ``None`` for one file.
    old: the files to remove, see ``previous.find``.
  """
  target = stage.target
  with space.explained(target.path):
    if shards is None:
      if old:
        stage.announce(path.name for path in old)
      os.replace(stage.part(0), target.single)
    else:
      stage.announce([*shards, *(path.name for path in old)])
      for i, name in enumerate(shards):
        os.replace(stage.part(i), target.parent / name)
      flush.names(target.parent)
      os.replace(stage.index, target.index)
      if target.single in old:  # Until now readers have found this file.
        target.single.unlink()
    flush.names(target.parent)
  for path in old:
    _remove(path)


def _remove(path: pathlib.Path) -> None:
  """Removes a file of the old checkpoint."""
  try:
    path.unlink(missing_ok=True)
  except OSError as error:
    raise OSError(
      error.errno,
      f'save: the new checkpoint is complete, but {path} of the old one cannot '
      f'be removed, {os.strerror(error.errno or 0).lower()}: remove it',
    ) from error
