"""Which processes a run has, from arguments or the environment."""

from collections.abc import Mapping
import importlib.util
from typing import Any, NamedTuple

VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
_SLURM = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_PROCID')
_SLURM_LOCAL, _SLURM_COUNT = 'SLURM_LOCALID', 'SLURM_STEP_NUM_TASKS'
_OPEN_MPI = 'OMPI_COMM_WORLD_SIZE'


class Found(NamedTuple):
  """Where the processes are described, and the arguments of JAX."""

  source: str
  arguments: dict[str, Any]


def find(
  coordinator: str | None,
  processes: int | None,
  process: int | None,
  environment: Mapping[str, str],
) -> Found | None:
  """Returns the processes of a run; ``None`` if it has one process.

  JAX itself reads the coordinator from the variables of SLURM and Open MPI, and
  everything from the metadata of a TPU.

  Raises:
    ValueError: if arguments or variables are incomplete or malformed.
  """
  given = coordinator, processes, process
  if given != (None, None, None):
    labels = 'coordinator=', 'processes=', 'process='
    return Found('arguments', _complete(given, labels))
  values = tuple(environment.get(name) for name in VARIABLES)
  if values[1:] != (None, None):
    return Found('the environment', _complete(values, VARIABLES))
  if all(name in environment for name in (*_SLURM, _SLURM_LOCAL)):
    # One task is a batch script or an interactive shell, whatever the job has.
    count = int(environment.get(_SLURM_COUNT, '1'))
    method = {'cluster_detection_method': 'slurm', 'num_processes': count}
    return Found('SLURM', method) if count > 1 else None
  if int(environment.get(_OPEN_MPI, '1')) > 1:
    return Found('Open MPI', {'cluster_detection_method': 'ompi'})
  platforms = environment.get('JAX_PLATFORMS', 'tpu').split(',')
  if importlib.util.find_spec('libtpu') and 'tpu' in platforms:
    return Found('TPU pod', {})
  return None


def _complete(values: tuple[Any, ...], labels: Any) -> dict[str, Any]:
  """Returns the arguments of JAX from three values, all of them given."""
  missing = [label for label, x in zip(labels, values) if x is None]
  if missing:
    raise ValueError(
      f'start: {" and ".join(missing)} missing: give {", ".join(labels)}'
    )
  address, *numbers = values
  host, _, port = str(address).rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise ValueError(
      f"start: {labels[0]} is '{address}': give host:port of process 0"
    )
  try:
    if any(isinstance(x, (bool, float)) for x in numbers):
      raise TypeError
    count, index = map(int, numbers)
  except (ValueError, TypeError):
    count, index = 0, 0
  if not 0 <= index < count:
    raise ValueError(
      f'start: process {numbers[1]} of {numbers[0]}: processes are numbered '
      f'from 0 ({labels[2].rstrip("=")} < {labels[1].rstrip("=")})'
    )
  names = 'coordinator_address', 'num_processes', 'process_id'
  return dict(zip(names, (address, count, index)))
