"""Error messages for folders that hold no checkpoint, or several."""

import pathlib

from wsl.checkpoint._read import foreign

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
_SHOWN = 4


def several(
  folder: pathlib.Path,
  files: list[pathlib.Path],
  indices: list[pathlib.Path],
  groups: list[str],
) -> str:
  """Returns the error message for a folder of several checkpoints."""
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
  names = [file.name for file in files[:_SHOWN]]
  kind = files[0].suffix.removeprefix('.')
  return (
    f'load: {folder} holds neither {INDEX} nor {SINGLE}, and '
    f'{len(files)} other {kind} files {names}: give one file'
  )


def no_files(folder: pathlib.Path, held: list[pathlib.Path]) -> str:
  """Returns the error message for a folder that is not a checkpoint."""
  for file in held:
    weights = file.suffix in ('.pkl', '.h5', '.keras', '.npy')
    found = foreign.recognise(file) if weights and file.is_file() else None
    if found is not None:
      return (
        f'load: {folder} holds neither {INDEX} nor {SINGLE}; {file.name} is '
        f'{found.name}: {found.remedy}'
      )
  names = [file.name for file in held[:_SHOWN]]
  folders = [file.name for file in held if file.is_dir()][:_SHOWN]
  hint = f', or choose {folders} by item=' if folders else ''
  return (
    f'load: {folder} holds neither {INDEX} nor {SINGLE}, but '
    f'{names or "nothing"}: give the folder or file of a checkpoint{hint}'
  )
