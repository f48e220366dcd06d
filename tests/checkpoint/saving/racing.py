"""Several processes save to one folder in all layouts, and one loads it.

``python -m tests.checkpoint.saving.racing FOLDER SECONDS`` prints the outcomes
of loading, and the writers' exit codes, as JSON.
"""

import collections
import contextlib
import json
import os
import pathlib
import random
import sys
import time
import traceback

import jax

from tests.checkpoint.saving import killing
from wsl import checkpoint

_WRITERS = 3


def write(folder: pathlib.Path, number: int, end: float) -> None:
  """Saves until a time; another writer may be at it."""
  rng = random.Random(number)
  generation = number
  while time.monotonic() < end:
    generation += _WRITERS
    size = rng.choice(killing.LAYOUTS['alternating'])
    with contextlib.suppress(BlockingIOError):
      checkpoint.save(folder, killing.params(generation), shard_bytes=size)


def fork_writer(folder: pathlib.Path, number: int, end: float) -> int:
  """Starts a writer; returns its number."""
  child = killing.fork()
  if child:
    return child
  try:
    write(folder, number, end)
  except BaseException:
    traceback.print_exc()
    os._exit(1)
  os._exit(0)


def main(folder: str, seconds: str) -> dict[str, object]:
  """Returns the number of each outcome of loading, and the exit codes."""
  target, end = pathlib.Path(folder), time.monotonic() + float(seconds)
  jax.process_index()  # Starts the backend before the first fork.
  checkpoint.save(target, killing.params(0))
  writers = [fork_writer(target, i, end) for i in range(_WRITERS)]
  count: collections.Counter[str] = collections.Counter()
  while time.monotonic() < end:
    try:
      found = killing.generation_of(checkpoint.load(target))
    except Exception as error:
      count[f'{type(error).__name__}: {error}'] += 1
    else:
      count['mixed' if found is None else 'whole'] += 1
  codes = [os.waitpid(writer, 0)[1] for writer in writers]
  return {'loads': count, 'codes': codes}


if __name__ == '__main__':
  print(json.dumps(main(*sys.argv[1:])))
