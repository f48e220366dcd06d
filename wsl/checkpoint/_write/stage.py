"""The hidden folder beside a target in which its files are written.

It has one name for each target, so that a save finds what a killed one left
there: parts, which are removed or resumed, and the names of the files that it
was about to put in place or to remove.
"""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import json
import os
import pathlib

from wsl.checkpoint._write import lock, previous, space
from wsl.checkpoint._write import target as target_lib

_LOCK = 'lock'
_SWAPPED = 'swapped'


@dataclasses.dataclass(frozen=True)
class Stage:
  """The folder of unfinished files, locked for one save."""

  folder: pathlib.Path
  target: target_lib.Target

  @property
  def journal(self) -> pathlib.Path:
    """Returns the file of the hashes of finished leaves."""
    return self.folder / 'journal'

  @property
  def index(self) -> pathlib.Path:
    """Returns the unfinished index."""
    return self.folder / 'index.part'

  def part(self, i: int) -> pathlib.Path:
    """Returns the unfinished file of the i-th shard."""
    return self.folder / f'{i}.part'

  def clear(self) -> None:
    """Removes all files but the lock."""
    for path in list(self.folder.iterdir()):
      if path.name != _LOCK:
        path.unlink()

  def announce(self, names: Iterable[str]) -> None:
    """Records the names of files to be put in place or removed."""
    with open(self.folder / _SWAPPED, 'w', encoding='utf-8') as file:
      json.dump(list(names), file)
      file.flush()
      os.fsync(file.fileno())


def of(target: target_lib.Target) -> Stage:
  """Returns the stage of a target, neither created nor locked."""
  return Stage(target.parent / f'.{target.single.name}.save', target)


@contextlib.contextmanager
def enter(target: target_lib.Target, *, keep: bool) -> Iterator[Stage]:
  """Locks the target and opens its stage; removes what a killed save left.

  Args:
    target: the place of the save; the folder of its files exists.
    keep: whether parts are kept, before and after a failure, to be resumed.

  Raises:
    BlockingIOError: if another writer saves to the target.
  """
  stage = of(target)
  folder = stage.folder
  with contextlib.ExitStack() as stack:
    stack.callback(lock.remove_folder, folder)
    with space.explained(target.path):
      stack.enter_context(lock.hold(folder / _LOCK, f'save: {target.path}'))
      _remove_orphans(stage)
      if not keep:
        stage.clear()
    try:
      yield stage
    except BaseException:
      with contextlib.suppress(OSError):
        _remove_orphans(stage)
        if not keep:
          stage.clear()
      raise
    stage.clear()


def _remove_orphans(stage: Stage) -> None:
  """Removes the shards of which a save that ended in its swap left too many.

  They are new shards if it had not replaced the index, and old ones if it had.
  """
  record = stage.folder / _SWAPPED
  try:
    names = [str(name) for name in json.loads(record.read_text('utf-8'))]
  except FileNotFoundError:
    return
  except ValueError:  # Its writer was killed: nothing was swapped.
    names = []
  parent = stage.target.parent
  index = previous.read_index(stage.target.index)
  if index is None:
    return  # The shards of a damaged index are not known.
  used = {stage.target.single.name, *index.shards}
  for path in (parent / name for name in names if name not in used):
    if path.parent == parent and previous.is_own(path):
      path.unlink()
  record.unlink()
