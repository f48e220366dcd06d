"""Ends a save before each of its operations on the file system, in turn.

``python -m tests.checkpoint.saving.crashing FOLDER OLD NEW HOW`` prints the
outcomes as JSON; OLD and NEW are layouts of ``SIZES``, HOW is one of ``HOWS``.
Unlike kills at random moments, these reach every state of a save.
"""

import errno
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


def _interrupt() -> None:
  raise KeyboardInterrupt


def _fail() -> None:
  raise OSError(errno.EIO, os.strerror(errno.EIO))


HOWS = {
  'kill': lambda: signal.raise_signal(signal.SIGKILL),
  'interrupt': _interrupt,
  'error': _fail,
}


def crash(folder: pathlib.Path, layout: str, after: int, how: str) -> bool:
  """Saves generation 2, ended at an operation; False if it had fewer."""
  child = killing.fork()
  if not child:
    left = [after]

    def count(event: str, _: object) -> None:
      left[0] -= event in _EVENTS
      if left[0] == -1 and event in _EVENTS:
        HOWS[how]()

    try:
      sys.addaudithook(count)
      save(folder, 2, layout)
    except (KeyboardInterrupt, OSError):
      pass
    except BaseException:
      traceback.print_exc()
      os._exit(1)
    os._exit(2 if left[0] < 0 else 0)
  _, status = os.waitpid(child, 0)
  ended = killing.was_killed(status) or os.waitstatus_to_exitcode(status) == 2
  assert ended or not status
  return ended


def main(folder: str, old: str, new: str, how: str) -> dict[str, list[str]]:
  """Returns the outcome after each operation, and what later saves leave."""
  target = pathlib.Path(folder)
  os.fsync = lambda _: None  # A killed process loses no written bytes.
  jax.process_index()  # Starts the backend before the first fork.
  found: dict[str, list[str]] = {'outcomes': [], 'litter': []}
  for after in range(1000):
    shutil.rmtree(target, ignore_errors=True)
    save(target, 1, old)
    (target / 'config.json').write_text('{}')
    if not crash(target, new, after, how):
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
