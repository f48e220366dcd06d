"""The flags of ``wsl-merge``."""

import argparse
import re
from typing import Any

_UNITS = {'KB': 10**3, 'MB': 10**6, 'GB': 10**9}
_UNITS |= {'KIB': 1 << 10, 'MIB': 1 << 20, 'GIB': 1 << 30}


_EPILOG = """\
examples:
  wsl-merge recipe.yml merged/ --dry_run
      which values hold for which tensors; bytes to read, to write and to hold;
      seconds; what would stop the merge. Nothing is written.
  wsl-merge recipe.yml merged/
      writes tensors, config.json, tokenizer, generation config, a model card.
  wsl-merge recipe.yml merged/ --at mistralai/Mistral-7B-v0.1=~/mistral
      the recipe names a model of a hub; its folder is here.
  wsl-merge recipe.yml merged/ --resume
      finished tensors are kept if the merge is killed; the same command
      continues it.
  wsl-merge recipe.yml lora/ --lora_rank 16
      the difference to base_model as a LoRA folder of PEFT; prints its errors.
  wsl-merge recipe.yml merged/ --dry_run --statistics statistics.jsonl
      how far the models agree, tensor by tensor, without a merge.

recipe.yml, for example:
  merge_method: ties
  base_model: base                # a folder, a file, or folder+adapter
  models:
    - model: expert_1
      parameters: {weight: 0.5, density: 0.2}
    - model: expert_2
      parameters:
        density: 0.2
        weight:
          - {regex: 'layers[.](0|1)[.]', value: 0.1}
          - {filter: mlp, value: [0, 1]}      # from the first layer to the last
          - {value: 0.5}
  dtype: bfloat16

Values are those of mergekit 0.1.5. Arithmetic is in float32 or wider, and each
tensor is rounded once. A report with figures is written by
python -m experiments.merge_checkpoints.
"""


def parser() -> argparse.ArgumentParser:
  """Returns the flags of the command."""
  found = argparse.ArgumentParser(
    prog='wsl-merge',
    description='Merges checkpoints by a recipe in the YAML of mergekit, '
    'tensor by tensor, on this machine.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  found.add_argument('recipe', help='the YAML file')
  found.add_argument('out', help='the folder of the merged model')
  _add_inputs(found.add_argument_group('inputs'))
  _add_outputs(found.add_argument_group('output'))
  return found


def _add_inputs(group: Any) -> None:
  """Adds the flags about models and tensors that are read."""
  add = group.add_argument
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
    help='what becomes of tensors that some models do not have; default error',
  )
  add('--seed', type=int, default=0, help='of random masks; default 0')
  add('--allow_nan', action='store_true', help='accept values that are not '
      'finite')  # fmt: skip


def _add_outputs(group: Any) -> None:
  """Adds the flags about what is written."""
  add = group.add_argument
  add('--dry_run', action='store_true', help='show the plan and stop')
  add(
    '--resume',
    action='store_true',
    help='keep finished tensors if the merge is killed, and continue such a '
    'merge',
  )
  add(
    '--statistics',
    metavar='FILE',
    help='write a line of JSON for each tensor, also in a dry run: cosines of '
    'task vectors, sign conflict, norm ratios, ranks; reads the inputs twice',
  )
  add(
    '--no_ranks',
    action='store_true',
    help='leave out ranks, which take most of the time of --statistics',
  )
  add('--overwrite', action='store_true', help='replace the model in OUT')
  add(
    '--lora_rank',
    type=rank,
    metavar='R',
    help='write the difference to the base as a LoRA folder of PEFT, of this '
    'rank, in place of the model; OUT must be new',
  )
  add(
    '--shard_size',
    default='5GB',
    metavar='SIZE',
    help='of the largest file, such as 500MB; default 5GB',
  )
  add(
    '--max_memory',
    metavar='SIZE',
    help='of the process, such as 2GiB: smaller chunks if that is enough, '
    'otherwise an error before the merge starts',
  )
  add(
    '--chunk_bytes',
    metavar='SIZE',
    help='of each operand of a chunk, such as 256KiB; default 1MiB',
  )
  add(
    '--checksums',
    action='store_true',
    help='record the SHA-256 of each tensor, which wsl verifies when it loads',
  )
  add(
    '--hash',
    action='store_true',
    help='state the SHA-256 of the inputs in the card: reads them twice',
  )


def place(text: str) -> tuple[str, str]:
  """Reads NAME=FOLDER."""
  name, found, folder = text.partition('=')
  if not (name and found and folder):
    raise ValueError(f'--at {text}: expected NAME=FOLDER')
  return name, folder


def rank(text: str) -> int:
  """Reads a rank, at least 1."""
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f'{text!r}: expected at least 1')
  return int(text)


def size(flag: str, text: str) -> int:
  """Reads a size such as 5GB, 500MB or 2GiB."""
  found = re.fullmatch(r'([0-9]+(?:[.][0-9]+)?) ?([A-Za-z]+)', text)
  unit = found[2].upper() if found else ''
  if found is None or unit not in _UNITS or not float(found[1]):
    raise ValueError(f'--{flag}={text}: expected such as 5GB, 500MB or 2GiB')
  return int(float(found[1]) * _UNITS[unit])
