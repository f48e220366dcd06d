"""``wsl-merge``: read the recipe, show the plan, merge, write the folder."""

import argparse
from collections.abc import Iterator, Sequence
import pathlib
import sys
import time

import jax

from wsl import checkpoint
from wsl.recipes import (
  _adapter,
  _build,
  _card,
  _companions,
  _folder,
  _parameters,
  _recipe,
  _statistics,
)
from wsl.recipes._command import flags as flags_lib
from wsl.recipes._command import limits, progress
from wsl.recipes._file import parse


def main(argv: Sequence[str] | None = None) -> None:
  """Runs ``wsl-merge RECIPE OUT``; an error is one line and exit code 1."""
  flags = flags_lib.parser().parse_args(argv)
  try:
    _run(flags)
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


def _run(flags: argparse.Namespace) -> None:
  """Reads the recipe, shows the plan, and unless it is a dry run merges."""
  out = pathlib.Path(flags.out)
  shard_bytes = flags_lib.size('shard_size', flags.shard_size)
  chunk_bytes, max_memory = (
    None if text is None else flags_lib.size(flag, text)
    for flag, text in (
      ('chunk_bytes', flags.chunk_bytes),
      ('max_memory', flags.max_memory),
    )
  )
  places = dict(flags_lib.place(text) for text in flags.at)
  recipe = parse.read(flags.recipe)
  # Read before the merge: the file may be edited while it runs.
  text = pathlib.Path(flags.recipe).read_text(encoding='utf-8')
  if not flags.dry_run and not flags.overwrite and _taken(out):
    raise ValueError(f'{out} holds a model: give another folder or --overwrite')
  if flags.lora_rank:
    recipe = _adapter.widen(recipe)
    if out.exists():
      raise ValueError(f'--lora_rank: {out} exists: give a new folder')
  folders = _folder.open_all(
    _recipe.models(recipe), places, check_finite=not flags.allow_nan
  )
  merged = _build.build(
    recipe, folders, key=jax.random.key(flags.seed), unmatched=flags.unmatched
  )
  template = _companions.chat_template(recipe, folders)
  _say(*_parameters.describe_parameters(merged.parameters))
  _say(*(f'note: {note}' for note in dict.fromkeys(merged.notes)))
  place = None if flags.lora_rank else out  # a LoRA needs little room
  plan, chunk_bytes = limits.plan(
    merged.params,
    place,
    chunk_bytes=chunk_bytes,
    max_memory=max_memory,
    probe=flags.dry_run,
    beside=_adapter.memory(merged, recipe.dtype) if flags.lora_rank else 0,
  )
  _say(str(plan), *_extra(flags, plan, merged, recipe.dtype))
  if plan.mistakes and not flags.dry_run:
    raise ValueError(plan.mistakes[0])
  if flags.statistics:
    count = _statistics.write_statistics(
      flags.statistics,
      merged,
      ranks=not flags.no_ranks,
      progress=progress.Progress(time.monotonic()),
    )
    _say(f'statistics of {count} tensors in {flags.statistics}')
  if flags.dry_run:
    return
  if flags.lora_rank:
    _say(
      *_adapter.write(
        *(out, recipe, folders, merged),
        rank=flags.lora_rank,
        key=jax.random.key(flags.seed),
        check_finite=not flags.allow_nan,
        checksums=flags.checksums,
        progress=progress.Progress(time.monotonic()),
      )
    )
    inputs = _card.describe_inputs(folders, hashes=flags.hash)
    _companions.write_card(out, recipe, text, inputs)
    return
  started = time.monotonic()
  checkpoint.save(
    out,
    merged.params,
    metadata={'format': 'pt'},
    shard_bytes=shard_bytes if plan.bytes_out > shard_bytes else None,
    progress=progress.Progress(started),
    check_finite=not flags.allow_nan,
    checksums=flags.checksums,
    resume=flags.resume,
    chunk_bytes=chunk_bytes,
  )
  _companions.write_companions(
    *(out, recipe, text, folders, merged),
    inputs=_card.describe_inputs(folders, hashes=flags.hash),
    template=template,
  )
  _say(f'merged into {out} in {time.monotonic() - started:.1f} s')


def _extra(
  flags: argparse.Namespace,
  plan: checkpoint.Plan,
  merged: _build.Merged,
  dtype: str | None,
) -> Iterator[str]:
  """Yields what the LoRA and the statistics take beside the merge."""
  show = checkpoint.format_bytes
  if flags.lora_rank:
    beside = _adapter.memory(merged, dtype)
    yield (
      f'the LoRA: {show(beside)} for the largest tensor, about '
      f'{show(plan.process_bytes + beside)} in all'
    )
  if flags.statistics:
    nbytes, seconds = _statistics.cost(
      merged, plan.rates, ranks=not flags.no_ranks
    )
    time_text = '' if seconds is None else f', about {seconds:.1f} s'
    ranks = '' if flags.no_ranks else ', and the time of ranks'
    yield f'--statistics: {show(nbytes)} more to read{time_text}{ranks}'


def _taken(out: pathlib.Path) -> bool:
  """Returns whether a folder holds tensors already."""
  # What a killed merge leaves is hidden; the next one continues or removes it.
  return out.is_file() or any(out.glob('[!.]*.safetensors*'))


def _say(*lines: str) -> None:
  for line in lines:
    sys.stdout.write(line + '\n')
