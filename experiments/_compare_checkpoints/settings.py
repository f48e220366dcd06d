"""The two checkpoints of a comparison: their tensors, metadata and files."""

from collections.abc import Sequence
import contextlib
import pathlib
from typing import Any, NamedTuple

import ml_collections

from experiments._run import checks
from wsl import checkpoint, tree


class Side(NamedTuple):
  """One checkpoint; no tensor is read.

  Attributes:
    path: its file or folder.
    tensors: on demand, by name.
    notes: metadata, and values in the file that are no tensors.
  """

  path: pathlib.Path
  tensors: dict[str, Any]
  notes: dict[str, str]


class Setting(NamedTuple):
  """Config and checkpoints of a run.

  Attributes:
    config: of the run.
    sides: a and b; empty if the run writes them itself.
  """

  config: ml_collections.ConfigDict
  sides: tuple[Side, ...]


def load(config: ml_collections.ConfigDict) -> Setting:
  """Opens the checkpoints; see ``experiment.Run`` for errors."""
  checks.sizes({'rows': (config.rows, 0, None)})
  if config.random.layers:
    return Setting(config, ())
  sides = []
  for field in ('a', 'b'):
    path = pathlib.Path(config[field]).expanduser()
    if not config[field] or not path.exists():
      raise FileNotFoundError(
        f'{field}: there is no checkpoint at {config[field]!r}: give a file or '
        f'a folder, --config.{field}=PATH'
      )
    options = {k: v for k, v in config.options[field].items() if v is not None}
    sides.append(opened(path, **options))
  return Setting(config, tuple(sides))


def opened(path: pathlib.Path, **options: Any) -> Side:
  """Opens a checkpoint of any format; values that are not finite are read."""
  params = checkpoint.load(path, lazy=True, check_finite=False, **options)
  leaves = tree.named(params)
  tensors = {k: x for k, x in leaves.items() if hasattr(x, 'dtype')}
  notes = {k: str(x) for k, x in leaves.items() if k not in tensors}
  with contextlib.suppress(ValueError):  # Orbax has none
    notes |= checkpoint.metadata(path)
  return Side(path, tensors, notes)


def stamps(sides: Sequence[Side]) -> dict[str, list[int]]:
  """Returns the size and the time of change of every file, by path."""
  found = {}
  for side in sides:
    folder = side.path.is_dir()
    files = sorted(side.path.rglob('*')) if folder else [side.path]
    for file in files:
      if file.is_file():
        state = file.stat()
        found[str(file)] = [state.st_size, state.st_mtime_ns]
  return found


def describe(setting: Setting) -> str:
  """Returns a line about the checkpoints."""
  if not setting.sides:
    return f'two random models of {setting.config.random.layers} layers'
  return ', '.join(
    f'{name}: {side.path}, {len(side.tensors)} tensors'
    for name, side in zip('ab', setting.sides)
  )
