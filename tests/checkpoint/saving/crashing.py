"""Ends a save before each of its operations on the file system, in turn.

``python -m tests.checkpoint.saving.crashing FOLDER OLD NEW`` prints the
outcomes as JSON; OLD and NEW are layouts of ``SIZES``. Unlike kills at random
moments, these reach every state that a save passes through.
"""

import json
import os
import pathlib
import shutil
import signal
import sys
import traceback

import jax

from tests.checkpoint.saving import killing
from wsl import checkpoint

SIZES = {'single': None, 'shards': 40_000, 'one shard': 10**9}
# Raised by Python before it opens, creates, renames or removes a file.
_EVENTS = ('open', 'os.mkdir', 'os.rename', 'os.remove', 'os.rmdir')


def save(folder: pathlib.Path, generation: int, layout: str) -> None:
  """Saves a generation."""
  params = killing.params(generation)
  checkpoint.save(folder, params, shard_bytes=SIZES[layout])


def crash(folder: pathlib.Path, layout: str, after: int) -> bool:
  """Saves generation 2, killed at an operation; False if it had fewer."""
  child = killing.fork()
  if not child:
    left = [after]

    def count(event: str, _: object) -> None:
      left[0] -= event in _EVENTS
      if left[0] < 0:
        signal.raise_signal(signal.SIGKILL)

    try:
      sys.addaudithook(count)
      save(folder, 2, layout)
      os._exit(0)
    except BaseException:
      traceback.print_exc()
      os._exit(1)
  _, status = os.waitpid(child, 0)
  assert killing.was_killed(status) or not status
  return bool(status)


def main(folder: str, old: str, new: str) -> dict[str, list[str]]:
  """Returns the outcome after each operation, and what later saves leave."""
  target = pathlib.Path(folder)
  jax.process_index()  # Starts the backend before the first fork.
  found: dict[str, list[str]] = {'outcomes': [], 'litter': []}
  for after in range(1000):
    shutil.rmtree(target, ignore_errors=True)
    save(target, 1, old)
    (target / 'config.json').write_text('{}')
    if not crash(target, new, after):
      break
    states = {
      killing.outcome(target, load, 1)
      for load in (checkpoint.load, killing.load_published)
    }
    found['outcomes'].append(' and '.join(sorted(states)))
    last = (old, new)[after % 2]
    save(target, 3, last)
    assert killing.outcome(target, checkpoint.load, 3) == 'old'
    found['litter'] += litter(target, last)
  return found


def litter(folder: pathlib.Path, layout: str) -> list[str]:
  """Returns the files that belong neither to the checkpoint nor to the user."""
  names = {'model.safetensors'}
  if SIZES[layout] is not None:
    index = json.loads((folder / 'model.safetensors.index.json').read_text())
    names = {'model.safetensors.index.json', *index['weight_map'].values()}
  present = {str(path.relative_to(folder)) for path in folder.rglob('*')}
  assert names <= present
  return sorted(present - names - {'config.json'})


if __name__ == '__main__':
  print(json.dumps(main(*sys.argv[1:])))
