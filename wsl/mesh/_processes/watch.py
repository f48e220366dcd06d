"""The end of a run of several processes: one fails, and all end.

Without it, the others would wait in the next collective operation. A thread of
each process counts up a number in the store of the coordinator, and reads
whether a process has failed. Process 0 also reads the numbers of all others: a
process whose number stays the same was killed, or its host is gone. A process
that fails by an exception writes the reason before it ends.
"""

import atexit
import os
import socket
import sys
import threading
import time
from types import TracebackType
from typing import Any

from wsl.mesh._processes import store

_LEFT = 'left'
# Messages of collective operations whose peer is gone.
_GONE = ('Gloo', 'NCCL', 'UNAVAILABLE', 'Connection', 'DEADLINE_EXCEEDED')

_RUNNING: 'list[Watch]' = []


def begin(process: int, processes: int, timeout: float) -> bool:
  """Starts the watch of this process; returns False if it is running."""
  if _RUNNING:
    return False
  _RUNNING.append(Watch(process, processes, timeout))
  _RUNNING[0].begin()
  return True


def end(reason: str, *, after: float = 0) -> None:
  """Ends this process, whatever its threads wait for, with status 1."""
  sys.stdout.flush()
  sys.stderr.write(f'wsl: {reason}: the run has ended\n')
  sys.stderr.flush()
  time.sleep(after)
  os._exit(1)


class Watch:
  """The thread of one process that ends it when another one fails.

  Attributes:
    process: the number of this process.
    processes: how many there are.
    timeout: seconds without a sign of life after which a process has failed.
  """

  def __init__(self, process: int, processes: int, timeout: float) -> None:
    self.process, self.processes, self.timeout = process, processes, timeout
    self.interval = min(1.0, timeout / 6)
    self.stopped = threading.Event()
    self.seen: dict[str, tuple[str, float]] = {}
    self.ending = threading.Lock()

  def begin(self) -> None:
    """Starts the thread, and reports exceptions that are not caught."""
    store.write(f'alive/{self.process}', '0')
    threading.Thread(target=self._run, daemon=True, name='wsl.mesh').start()
    previous = sys.excepthook

    def hook(
      kind: type[BaseException],
      error: BaseException,
      traceback: TracebackType | None,
    ) -> Any:
      previous(kind, error, traceback)
      self.fail(error)

    sys.excepthook = hook
    # It runs before the shutdown of JAX, which waits for the others.
    atexit.register(self._leave)

  def fail(self, error: BaseException) -> None:
    """Tells all processes the reason, and ends this one."""
    lines = str(error).strip().splitlines() or ['']
    reason = f'{self._name(self.process)}: {type(error).__name__}: {lines[0]}'
    known = self._verdict(any(word in str(error) for word in _GONE))
    if known is None:
      self._write('failed', reason)
    self._end(known or reason)

  def _run(self) -> None:
    """Gives signs of life and reads those of others, until one fails."""
    count = 0
    while not self.stopped.wait(self.interval):
      count += 1
      try:
        store.write(f'alive/{self.process}', str(count))
        reason = store.read('failed')
        if reason is None and self.process == 0:
          reason = self._silent(store.read_all('alive'))
          if reason is not None:
            store.write('failed', reason)
      except Exception:
        if self.stopped.is_set():
          return
        reason = f'{self._name(0)}, the coordinator, does not answer'
      if reason is not None:
        self._end(reason)

  def _silent(self, alive: dict[str, str]) -> str | None:
    """Describes a process without a sign of life; ``None`` if all have one."""
    now = time.monotonic()
    for key, value in alive.items():
      last, since = self.seen.get(key, ('', now))
      self.seen[key] = (value, since if value == last else now)
      if value != _LEFT and value == last and now - since > self.timeout:
        return (
          f'{self._name(int(key))} gave no sign of life for '
          f'{self.timeout:g} s: it was killed, or its host is gone'
        )
    return None

  def _verdict(self, wait: bool) -> str | None:
    """Returns the failure that another process reported, if there is one.

    An error of a collective operation has its reason elsewhere, which process 0
    finds within the timeout.
    """
    until = time.monotonic() + (self.timeout + 2 * self.interval) * wait
    while True:
      try:
        reason = store.read('failed')
      except ConnectionError:
        return f'{self._name(0)}, the coordinator, does not answer'
      if reason is not None or time.monotonic() >= until:
        return reason
      time.sleep(self.interval / 2)

  def _end(self, reason: str) -> None:
    """Ends this process with the reason; process 0 lets the others read it."""
    self.ending.acquire()  # by the thread or by the hook, once
    end(reason, after=3 * self.interval if self.process == 0 else 0)

  def _leave(self) -> None:
    """Notes that this process has ended in good order."""
    self.stopped.set()
    self._write(f'alive/{self.process}', _LEFT)

  def _write(self, key: str, value: str) -> None:
    """Sets a string if the coordinator is still there."""
    try:
      store.write(key, value)
    except Exception:
      self.stopped.set()

  def _name(self, process: int) -> str:
    """Names a process, this one with its host."""
    where = f' on {socket.gethostname()}' if process == self.process else ''
    return f'process {process} of {self.processes}{where}'
