"""The start of a run of one or several processes."""

import json
import math
import os
import threading
from typing import Any, NamedTuple

import jax

from wsl.mesh._processes import find, fingerprint, store
from wsl.mesh._processes import watch as watch_lib

# A process that has finished waits for the others so many timeouts.
_PATIENCE = 5


class Processes(NamedTuple):
  """The processes of a run; ``str`` describes them in one line.

  Attributes:
    source: where they were described: ``'arguments'``, ``'the environment'``,
      ``'SLURM'``, ``'Open MPI'``, ``'TPU pod'``, or ``'one process'``.
    process: the number of this process; process 0 writes files, and puts those
      in place that all have written together.
    processes: how many there are.
    coordinator: host and port of process 0; ``''`` of one process.
    local_devices: the devices of this process.
    devices: the devices of all processes.
    platform: the kind of the devices, ``'cpu'``, ``'gpu'`` or ``'tpu'``.
  """

  source: str
  process: int
  processes: int
  coordinator: str
  local_devices: int
  devices: int
  platform: str

  def __str__(self) -> str:
    devices = f'{self.local_devices} of {self.devices} {self.platform} devices'
    if self.processes == 1:
      return f'one process, {self.devices} {self.platform} devices'
    return (
      f'process {self.process} of {self.processes} (from {self.source}, '
      f'coordinator {self.coordinator}), {devices}'
    )


def start(
  *,
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  config: Any = None,
  timeout: float = 60.0,
) -> Processes:
  """Connects the processes of a run, if it has several, before any computation.

  The processes are described by the arguments; or by the variables
  ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``; or
  by SLURM (``srun``), Open MPI or the metadata of a TPU pod. Without any of
  these there is one process, and nothing is connected. CPUs communicate by
  gloo.

  All processes must run the same code (the files of this package and imported
  modules outside of Python's folders), the same versions of Python and JAX, and
  the same config. If one of them fails by an exception, is killed or loses its
  host, or is not there at the start, all end, with the reason on standard error
  and exit status 1. (If process 0 is killed, JAX ends the others at once.) A
  process that has finished waits for the others, at most five timeouts.

  Args:
    coordinator: ``'host:port'`` of process 0, which all processes can reach.
    processes: how many processes there are.
    process: the number of this one, from 0.
    config: a mapping or text that all processes must agree on.
    timeout: seconds that a process waits for the others here, and after which
      a process without a sign of life ends the run.

  Returns:
    The processes and devices that were found.

  Raises:
    ValueError: if only a part of the arguments or variables is given, or a
      process has other code, another version or another config than process 0,
      naming the difference; or if ``timeout`` is not positive.
    RuntimeError: if JAX was used before.

  Example:
    >>> print(start(config={'seed': 0}))
    one process, ... devices
  """
  if not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
    raise ValueError(
      f'start(timeout={timeout!r:.60}): give a positive number of seconds'
    )
  source = 'one process'
  if jax.distributed.is_initialized():
    source = 'jax.distributed.initialize'
  else:
    found = find.find(coordinator, processes, process, os.environ)
    if found is not None and _connect(found, timeout):
      source = found.source
  if jax.process_count() > 1:
    _agree(config, timeout)
  return Processes(
    source,
    jax.process_index(),
    jax.process_count(),
    store.address(),
    jax.local_device_count(),
    jax.device_count(),
    jax.default_backend(),
  )


def _connect(found: find.Found, timeout: float) -> bool:
  """Connects the processes; returns False if a TPU is no pod."""
  seconds = math.ceil(timeout)
  # JAX aborts the process at its timeouts. The reason comes first.
  late = threading.Timer(timeout, watch_lib.end, [_late(found, timeout)])
  late.daemon = True
  late.start()
  try:
    jax.distributed.initialize(
      **found.arguments,
      initialization_timeout=2 * seconds + 5,
      heartbeat_timeout_seconds=2 * seconds + 5,
      shutdown_timeout_seconds=_PATIENCE * seconds,
    )
  except RuntimeError as error:
    if 'must be called before' in str(error):
      raise RuntimeError(
        'start: JAX has been used already: call it first, before jax.devices()'
      ) from None
    raise
  except ValueError as error:
    if not found.arguments and 'should be defined' in str(error):
      return False
    raise
  finally:
    late.cancel()
  return True


def _late(found: find.Found, timeout: float) -> str:
  """Explains that processes are not connected in time."""
  arguments = found.arguments
  count = arguments.get('num_processes', '')
  if arguments.get('process_id') == 0:
    return (
      f'start: not all {count} processes were here within {timeout:g} s: '
      'start the others, or give a longer timeout='
    )
  where = arguments.get('coordinator_address', f'named by {found.source}')
  return (
    f'start: the coordinator {where} did not answer within {timeout:g} s: '
    'start process 0, and open its port'
  )


def _agree(config: Any, timeout: float) -> None:
  """Watches the other processes, and compares them with process 0."""
  process = jax.process_index()
  if not watch_lib.begin(process, jax.process_count(), timeout):
    return
  ours = json.dumps(fingerprint.fingerprint(config), sort_keys=True)
  if process == 0:
    store.write('fingerprint', ours)
  fingerprint.compare(process, ours, store.wait_for('fingerprint', timeout))
  store.barrier('start', timeout)
