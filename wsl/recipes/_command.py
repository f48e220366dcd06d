"""The console script ``wsl-merge``: merges checkpoints by a recipe."""

import argparse
from collections.abc import Sequence
import pathlib
import sys
import time

import jax

from wsl import checkpoint
from wsl.recipes import _build, _companions, _folder, _recipe
from wsl.recipes._file import parse

_UNITS = {'KB': 10**3, 'MB': 10**6, 'GB': 10**9}


def main(argv: Sequence[str] | None = None) -> None:
  """Runs ``wsl-merge RECIPE OUT``; an error is one line and exit code 1."""
  flags = _flags().parse_args(argv)
  try:
    _run(flags)
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


def _run(flags: argparse.Namespace) -> None:
  """Reads the recipe, shows the plan, and unless it is a dry run merges."""
  out = pathlib.Path(flags.out)
  shard_bytes = _bytes(flags.shard_size)
  places = dict(_place(text) for text in flags.at)
  recipe = parse.read(flags.recipe)
  # Read before the merge: the file may be edited while it runs.
  text = pathlib.Path(flags.recipe).read_text(encoding='utf-8')
  if not flags.dry_run and not flags.overwrite and _taken(out):
    raise ValueError(f'{out} holds a model: give another folder or --overwrite')
  folders = _folder.open_all(
    _recipe.models(recipe), places, check_finite=not flags.allow_nan
  )
  merged = _build.build(
    recipe, folders, key=jax.random.key(flags.seed), unmatched=flags.unmatched
  )
  template = _companions.template(recipe, folders)
  _say(*(f'note: {note}' for note in dict.fromkeys(merged.notes)))
  plan = checkpoint.plan(merged.params, path=out, probe=flags.dry_run)
  _say(str(plan))
  if flags.dry_run:
    return
  if plan.mistakes:
    raise ValueError(plan.mistakes[0])
  started = time.monotonic()
  checkpoint.save(
    out,
    merged.params,
    metadata={'format': 'pt'},
    shard_bytes=shard_bytes if plan.bytes_out > shard_bytes else None,
    progress=Progress(started),
    check_finite=not flags.allow_nan,
  )
  options = {'template': template, 'hashes': flags.hash}
  _companions.write(out, recipe, text, folders, merged, **options)
  _say(f'merged into {out} in {time.monotonic() - started:.1f} s')


class Progress:
  """Shows bytes, rate and the time left: a line that is rewritten, or lines.

  Attributes:
    started: the time at the start, in seconds.
    shown: the time of the last line.
  """

  def __init__(self, started: float) -> None:
    self.started = started
    self.shown = started

  def __call__(self, name: str, done: int, total: int) -> None:
    del name
    now = time.monotonic()
    every = 0.2 if sys.stderr.isatty() else 10.0
    if now - self.shown < every and done < total:
      return
    self.shown = now
    rate = done / max(now - self.started, 1e-3)
    left = (total - done) / max(rate, 1.0)
    end = '\r' if sys.stderr.isatty() and done < total else '\n'
    sys.stderr.write(
      f'{done / 1e6:8.0f} of {total / 1e6:.0f} MB  {rate / 1e6:6.0f} MB/s  '
      f'{left:5.0f} s left{end}'
    )
    sys.stderr.flush()


def _flags() -> argparse.ArgumentParser:
  """Returns the flags of the command."""
  parser = argparse.ArgumentParser(
    prog='wsl-merge',
    description='Merges checkpoints by a recipe in the YAML of mergekit, '
    'tensor by tensor, on this machine.',
    epilog='Models are folders. Values are those of mergekit 0.1.5; arithmetic '
    'is in float32 or wider, and each tensor is rounded once.',
  )
  add = parser.add_argument
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
  return parser


def _taken(out: pathlib.Path) -> bool:
  """Returns whether a folder holds tensors already."""
  return out.is_file() or any(out.glob('*.safetensors*'))


def _place(text: str) -> tuple[str, str]:
  """Reads NAME=FOLDER."""
  name, found, folder = text.partition('=')
  if not (name and found and folder):
    raise ValueError(f'--at {text}: expected NAME=FOLDER')
  return name, folder


def _bytes(text: str) -> int:
  """Reads a size such as 5GB or 500MB."""
  number, unit = text[:-2], text[-2:].upper()
  if unit not in _UNITS or not number.replace('.', '', 1).isdecimal():
    raise ValueError(f'--shard_size={text}: expected such as 5GB or 500MB')
  return int(float(number) * _UNITS[unit])


def _say(*lines: str) -> None:
  for line in lines:
    sys.stdout.write(line + '\n')
