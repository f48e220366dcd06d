"""Merges of checkpoints against mergekit: seconds and memory of processes.

  python tests/bench/checkpoints.py --mergekit=ENV/bin/mergekit-yaml

A base and three experts of 0.56 billion parameters are written to a scratch
folder, as Llama folders in shards of bfloat16, and deleted at the end (6 GB).
Each measurement is a fresh process, imports and compilation included. Methods
are run in turn, three rounds of all of them, and a table of medians follows
each round: values that miss what is expected are marked by ``!`` and listed.
The whole takes at most ``--minutes``, most of them mergekit's: a run of it that
would not end in time is left out, and the column ``pairs`` counts those that
were made. Without ``--mergekit`` it takes four. ``--out`` gets every round as a
line of JSON.

  floor     reads the models of the method into one buffer, and writes one model
            to the disk
  wsl       ``checkpoint.save(folder, ...)``, after a ``checkpoint.plan`` of it;
            ``planned`` is the planned memory over the one it used
  mergekit  ``mergekit-yaml`` on the same files; TIES and DARE-TIES are merged
            by its own definition, ``dialect='mergekit'``

``over_floor`` is the time without the imports over that of the floor in the
same round; ``faster`` and ``less memory`` compare with mergekit in the same
round.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests.bench._checkpoints import methods as methods_lib
from tests.bench._checkpoints import models as models_lib
from tests.bench._checkpoints import report


def floor(folder: pathlib.Path, numbers: list[int]) -> None:
  """Moves the bytes of a merge, with plain reads and writes."""
  buffer = memoryview(bytearray(1 << 22))
  size = 0
  for t in numbers:
    size = 0
    for path in sorted((folder / f'{t}').glob('*.safetensors')):
      with open(path, 'rb', buffering=0) as file:
        while count := file.readinto(buffer):
          size += count
  with open(folder / 'floor', 'wb', buffering=0) as out:
    for done in range(0, size, len(buffer)):
      out.write(buffer[: size - done])
    os.fsync(out.fileno())  # as ``checkpoint.save`` does
  (folder / 'floor').unlink()


def command(
  who: str, folder: pathlib.Path, flags: argparse.Namespace, method: str
) -> list[str]:
  """Returns the command of one measurement."""
  if who == 'mergekit':
    config = folder / 'config.yml'
    config.write_text(methods_lib.recipe(folder, flags.models, method))
    out = str(folder / 'merged')
    options = ['--no-copy-tokenizer', '--quiet', '--no-write-model-card']
    return [flags.mergekit, str(config), out, *options]
  return [
    sys.executable, __file__, f'--worker={who}', f'--folder={folder}',
    f'--models={flags.models}', f'--methods={method}',
    f'--millions={flags.millions}',
  ]  # fmt: skip


def measure(words: list[str], folder: pathlib.Path) -> dict[str, float]:
  """Runs a process; returns its seconds and peak memory."""
  shutil.rmtree(folder / 'merged', ignore_errors=True)
  os.sync()  # else it waits for what the process before it left to be written
  start = time.perf_counter()
  with tempfile.TemporaryFile() as log:
    process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    log.seek(0)
    output = log.read().decode(errors='replace')
  if process.returncode:
    raise RuntimeError(f'{words} failed:\n{output[-2000:]}')
  found = {'seconds': seconds, 'mib': usage.ru_maxrss / 1024}
  found['cpu'] = usage.ru_utime + usage.ru_stime
  said = output.strip().splitlines()[-1:]
  return found | (json.loads(said[0]) if said and 'planned' in said[0] else {})


def work(flags: argparse.Namespace) -> None:
  """Does the work of one measured process."""
  folder = pathlib.Path(flags.folder)
  if flags.worker == 'generate':
    for t in range(flags.models + 1):
      if not (folder / f'{t}').exists():
        models_lib.generate(folder / f'{t}', flags.millions, t)
    return
  if flags.worker == 'floor':
    floor(folder, methods_lib.inputs(flags.methods, flags.models))
    return
  from wsl import checkpoint

  if flags.worker == 'import':
    return
  x = methods_lib.merged(folder, flags.models, flags.methods)
  print(json.dumps({'planned': checkpoint.plan(x).process_bytes / 2**20}))
  (folder / 'merged').mkdir()
  checkpoint.save(folder / 'merged', x, shard_bytes=5_000_000_000)


def run(
  flags: argparse.Namespace, folder: pathlib.Path, method: str, peer: bool
) -> dict[str, dict[str, float]]:
  """Runs every process of one method in turn."""
  who = ['import', 'floor', 'wsl']
  if flags.mergekit and peer and methods_lib.has_peer(method):
    who.append('mergekit')
  return {w: measure(command(w, folder, flags, method), folder) for w in who}


def compare(flags: argparse.Namespace, folder: pathlib.Path) -> None:
  """Runs the rounds; prints the table after each."""
  start = time.monotonic()
  rounds: dict[str, list[Any]] = {m: [] for m in flags.methods.split(',')}
  for i in range(flags.repeats):
    for method, found in rounds.items():
      spent = (time.monotonic() - start) / 60
      longest = max((_minutes(x) for x in found), default=0.0)
      peer = spent + longest < flags.minutes
      found.append(run(flags, folder, method, peer))
      line = json.dumps({'method': method, 'round': i, **found[-1]})
      if flags.out:
        with open(flags.out, 'a', encoding='utf-8') as file:
          file.write(f'{line}\n')
    spent = (time.monotonic() - start) / 60
    print(f'\nround {i + 1} of {flags.repeats}, {spent:.1f} minutes')
    rows = [report.row(m, found) for m, found in rounds.items()]
    print(report.table(rows), flush=True)


def _minutes(runs: dict[str, dict[str, float]]) -> float:
  """Returns the time of all processes of a round."""
  return sum(x['seconds'] for x in runs.values()) / 60


def main() -> None:
  """Writes the models, measures, deletes them."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--millions', type=float, default=560)
  parser.add_argument('--models', type=int, default=3)
  parser.add_argument('--methods', default=','.join(methods_lib.METHODS))
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--mergekit', default=None, help='path of mergekit-yaml')
  parser.add_argument('--minutes', type=float, default=19)
  parser.add_argument('--out', default=None, help='a file for JSON lines')
  parser.add_argument('--scratch', default=None, help='default: the system one')
  parser.add_argument('--folder', default=None, help='models to use and keep')
  parser.add_argument('--worker', default=None, help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.worker:
    work(flags)
    return
  with tempfile.TemporaryDirectory(dir=flags.scratch) as scratch:
    folder = pathlib.Path(flags.folder or scratch)
    folder.mkdir(parents=True, exist_ok=True)
    # The peak of a process includes that of the one that started it, so this
    # one stays small.
    measure(command('generate', folder, flags, ''), folder)
    compare(flags, folder)


if __name__ == '__main__':
  main()
