"""Kills saves of a folder at random moments and loads what they leave.

``python -m tests.checkpoint.saving.killing FOLDER LAYOUT KILLS SEED`` prints
counts as JSON. Writers are forked, since importing JAX takes a second.
"""

import collections
from collections.abc import Callable, Iterator
import itertools
import json
import os
import pathlib
import random
import signal
import sys
import time
from typing import Any
import warnings

import jax
import numpy as np
from safetensors import numpy as published

from wsl import checkpoint

_LEAVES = 3
_INDEX = 'model.safetensors.index.json'
# The bytes of a shard in the successive saves of a writer.
LAYOUTS = {
  'single': (None,),
  'shards': (1,),
  'alternating': (None, 1, 1, None, 40_000),
}


def params(generation: int) -> dict[str, np.ndarray]:
  """Returns leaves that all hold the number of their generation."""
  return {f'{i}': np.full(8192, generation, np.float32) for i in range(_LEAVES)}


def generation_of(leaves: dict[str, np.ndarray]) -> int | None:
  """Returns the generation of the leaves, ``None`` if several are mixed."""
  found = {int(x[0]) for x in leaves.values()}
  whole = all((x == x[0]).all() for x in leaves.values())
  sound = whole and len(found) == 1 and len(leaves) == _LEAVES
  return found.pop() if sound else None


def load_published(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Loads a folder in the way of transformers: one file before an index."""
  if (folder / 'model.safetensors').exists():
    return published.load_file(folder / 'model.safetensors')
  shard_of = json.loads((folder / _INDEX).read_text())['weight_map']
  found = {}
  for shard in set(shard_of.values()):
    leaves = published.load_file(folder / shard)
    found.update({n: x for n, x in leaves.items() if shard_of.get(n) == shard})
  return found


def outcome(
  folder: pathlib.Path, load: Callable[[pathlib.Path], Any], old: int
) -> str:
  """Loads a folder, which should hold a generation or the next one."""
  try:
    found = generation_of(load(folder))
  except Exception as error:
    return f'{type(error).__name__}: {error}'
  if found is None:
    return 'mixed'
  return {old: 'old', old + 1: 'new'}.get(found, 'wrong')


def fork() -> int:
  """Forks; the child does not wait for the disk."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # JAX warns about every fork.
    child = os.fork()
  if not child:
    os.fsync = lambda _: None  # A killed process loses no written bytes.
    signal.alarm(60)
  return child


def was_killed(status: int) -> bool:
  """Returns True for a process that ended by SIGKILL."""
  return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def write_forever(
  folder: pathlib.Path, first: int, sizes: Iterator[int | None], done: int
) -> None:
  """Saves one generation after the other; reports the finished ones."""
  for generation in itertools.count(first):
    checkpoint.save(folder, params(generation), shard_bytes=next(sizes))
    os.write(done, generation.to_bytes(4, 'little'))


def kill_once(
  folder: pathlib.Path,
  first: int,
  sizes: Iterator[int | None],
  delay: float,
) -> int:
  """Kills a writer after a delay; returns the last generation it finished."""
  reader, writer = os.pipe()
  child = fork()
  if not child:
    try:
      write_forever(folder, first, sizes, writer)
    finally:
      os._exit(1)
  os.close(writer)
  finished = os.read(reader, 4)  # The writer has started.
  time.sleep(delay)
  os.kill(child, signal.SIGKILL)
  _, status = os.waitpid(child, 0)
  assert was_killed(status), 'the writer ended by itself'
  while more := os.read(reader, 4):
    finished = more
  os.close(reader)
  return int.from_bytes(finished, 'little')


def main(folder: str, layout: str, kills: int, seed: int) -> dict[str, int]:
  """Returns the number of each outcome, and of saves."""
  target = pathlib.Path(folder)
  jax.process_index()  # Starts the backend before the first fork.
  rng = random.Random(seed)
  count: collections.Counter[str] = collections.Counter()
  last = 0
  for _ in range(kills):
    sizes = itertools.cycle(LAYOUTS[layout])
    for _ in range(rng.randrange(len(LAYOUTS[layout]))):
      next(sizes)
    finished = kill_once(target, last + 1, sizes, rng.uniform(0, 0.02))
    found = {
      outcome(target, load, finished)
      for load in (checkpoint.load, load_published)
    }
    count[' and '.join(sorted(found))] += 1
    count['saves'] += finished - last
    last = finished + ('new' in found)
  return dict(count)


if __name__ == '__main__':
  print(json.dumps(main(*sys.argv[1:3], *map(int, sys.argv[3:]))))
