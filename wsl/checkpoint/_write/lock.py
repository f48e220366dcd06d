"""One writer for a target: a lock file that names its owner.

The kernel's lock on the file excludes the threads, processes and containers of
one machine, and ends with its owner, even a killed one. The content of the file
names the owner, for messages, and for file systems without such locks: there a
lock is stale if its owner's process has ended. Numbers of processes are reused;
the time at which the process started is part of its identity.
"""

from collections.abc import Iterator
import contextlib
import datetime
import errno
import json
import os
import pathlib
import socket
from typing import NamedTuple

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_BOOT = pathlib.Path('/proc/sys/kernel/random/boot_id')


class Owner(NamedTuple):
  """The process that holds a lock.

  Attributes:
    pid: its number.
    host: the name of its machine.
    boot: the identity of the machine's kernel since it was started.
    started: the time at which the process started, in the kernel's ticks.
    since: the date of the lock.
  """

  pid: int
  host: str
  boot: str
  started: str
  since: str


def remove_folder(folder: pathlib.Path) -> None:
  """Removes a stage, unless it holds parts or the lock of another writer."""
  with contextlib.suppress(OSError):
    folder.rmdir()


@contextlib.contextmanager
def hold(path: pathlib.Path, what: str) -> Iterator[None]:
  """Holds a lock file, and removes it.

  Args:
    path: the lock file; its folder is created, and not removed.
    what: the function and the target, with which the message begins.

  Raises:
    BlockingIOError: if another writer holds it, naming its owner.
  """
  descriptor = _acquire(path, what)
  try:
    yield
  finally:
    path.unlink(missing_ok=True)
    # A forked child may share the lock: closing it here would not suffice.
    _flock(descriptor, release=True)
    os.close(descriptor)


def _acquire(path: pathlib.Path, what: str) -> int:
  """Opens and locks the file; returns its descriptor."""
  while True:
    with contextlib.suppress(FileExistsError):
      path.parent.mkdir()
    try:
      descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:  # The last owner has just removed the folder.
      continue
    try:
      locked = _flock(descriptor)
      if locked and not _is_at(descriptor, path):
        os.close(descriptor)
        continue
      owner = _read(descriptor)
      if locked is False or (owner and _may_live(owner, locked)):
        raise BlockingIOError(_held(owner, path, what))
      os.ftruncate(descriptor, 0)
      os.pwrite(descriptor, json.dumps(_own()).encode(), 0)
    except BaseException:
      os.close(descriptor)
      raise
    return descriptor


def _flock(descriptor: int, *, release: bool = False) -> bool | None:
  """Locks or releases the file; None if the system has no such locks."""
  try:
    import fcntl
  except ImportError:  # Windows
    return None
  how = fcntl.LOCK_UN if release else fcntl.LOCK_EX | fcntl.LOCK_NB
  try:
    fcntl.flock(descriptor, how)
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno in _UNSUPPORTED:
      return None
    raise
  return True


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
  """Returns True if the path still names the open file."""
  try:
    return os.path.samestat(os.fstat(descriptor), os.stat(path))
  except FileNotFoundError:
    return False


def _read(descriptor: int) -> Owner | None:
  """Returns the owner that the file names, if it does."""
  try:
    return Owner(*json.loads(os.pread(descriptor, 4096, 0)))
  except (ValueError, TypeError):
    return None


def _may_live(owner: Owner, locked: bool | None) -> bool:
  """Returns True if the owner may be running although its lock is free."""
  own = _own()
  if owner.host != own.host and owner.boot != own.boot:
    return True  # Not all file systems share locks between machines.
  if locked or owner.boot != own.boot:
    return False  # The kernel has released the lock, or was started since.
  return _started(owner.pid) == owner.started


def _own() -> Owner:
  """Returns this process."""
  pid, now = os.getpid(), datetime.datetime.now().astimezone()
  try:
    boot = _BOOT.read_text().strip()
  except OSError:
    boot = ''
  since = now.isoformat(' ', 'seconds')
  return Owner(pid, socket.gethostname(), boot, _started(pid) or '', since)


def _started(pid: int) -> str | None:
  """Returns the start of a process; None if it has ended."""
  try:
    # The name of the program, in parentheses, may hold spaces.
    status = pathlib.Path(f'/proc/{pid}/stat').read_text()
    return status.rpartition(')')[2].split()[19]
  except FileNotFoundError:
    pass
  try:
    os.kill(pid, 0)  # Systems without /proc
  except ProcessLookupError:
    return None
  except OSError:
    pass
  return ''


def _held(owner: Owner | None, path: pathlib.Path, what: str) -> str:
  """Returns the message for a lock that another writer holds."""
  who = 'another process'
  if owner is not None:
    who = f'process {owner.pid} on {owner.host} since {owner.since}'
  remedy = 'wait for it, or give another path'
  if owner is not None and owner.host != socket.gethostname():
    remedy += f'; if it has ended, remove {path}'
  return f'{what} is being saved by {who}: {remedy}'
