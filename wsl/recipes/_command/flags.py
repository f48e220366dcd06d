"""The flags of ``wsl-merge``."""

import argparse

_UNITS = {'KB': 10**3, 'MB': 10**6, 'GB': 10**9}


def parser() -> argparse.ArgumentParser:
  """Returns the flags of the command."""
  found = argparse.ArgumentParser(
    prog='wsl-merge',
    description='Merges checkpoints by a recipe in the YAML of mergekit, '
    'tensor by tensor, on this machine.',
    epilog='Models are folders. Values are those of mergekit 0.1.5; arithmetic '
    'is in float32 or wider, and each tensor is rounded once.',
  )
  add = found.add_argument
  add('recipe', help='the YAML file')
  add('out', help='the folder of the merged model')
  add('--dry_run', action='store_true', help='show the plan and stop')
  add(
    '--at',
    action='append',
    default=[],
    metavar='NAME=FOLDER',
    help='the folder of a model that the recipe names otherwise; repeatable',
  )
  add(
    '--unmatched',
    choices=('error', 'copy', 'drop'),
    default='error',
    help='what becomes of tensors that some models do not have',
  )
  add('--shard_size', default='5GB', help='of the largest file; default 5GB')
  add('--seed', type=int, default=0, help='of random masks; default 0')
  add('--hash', action='store_true', help='state hashes of inputs in the card')
  add('--overwrite', action='store_true', help='replace the model in OUT')
  add('--allow_nan', action='store_true', help='accept values that are not '
      'finite')  # fmt: skip
  return found


def place(text: str) -> tuple[str, str]:
  """Reads NAME=FOLDER."""
  name, found, folder = text.partition('=')
  if not (name and found and folder):
    raise ValueError(f'--at {text}: expected NAME=FOLDER')
  return name, folder


def size(text: str) -> int:
  """Reads a size such as 5GB or 500MB."""
  number, unit = text[:-2], text[-2:].upper()
  if unit not in _UNITS or not number.replace('.', '', 1).isdecimal():
    raise ValueError(f'--shard_size={text}: expected such as 5GB or 500MB')
  return int(float(number) * _UNITS[unit])
