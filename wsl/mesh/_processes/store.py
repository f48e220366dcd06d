"""Strings that the processes of a run share, kept by the coordinator.

JAX keeps them in its coordination service, whose client is not public.
"""

from typing import Any


def client() -> Any:
  """Returns the client of the coordination service."""
  return _state().client


def address() -> str:
  """Returns host and port of the coordinator; ``''`` without one."""
  return str(_state().coordinator_address or '')


def _state() -> Any:
  from jax._src import distributed

  return distributed.global_state


def write(key: str, value: str) -> None:
  """Sets a string."""
  client().key_value_set(f'wsl/{key}', value, allow_overwrite=True)


def read(key: str) -> str | None:
  """Returns a string; ``None`` if it was not set.

  Raises:
    ConnectionError: if the coordinator does not answer.
  """
  try:
    return str(client().key_value_try_get(f'wsl/{key}'))
  except Exception as error:
    if 'NOT_FOUND' in str(error):
      return None
    raise ConnectionError(str(error).partition('\n')[0]) from None


def read_all(folder: str) -> dict[str, str]:
  """Returns the strings whose keys begin with ``folder/``."""
  found = client().key_value_dir_get(f'wsl/{folder}/')
  return {key.rpartition('/')[2]: value for key, value in found}


def wait_for(key: str, timeout: float) -> str:
  """Returns a string when it is set."""
  wait = client().blocking_key_value_get
  return str(wait(f'wsl/{key}', int(1000 * timeout)))


def barrier(name: str, timeout: float) -> None:
  """Waits until every process has called it."""
  client().wait_at_barrier(f'wsl/{name}', int(1000 * timeout))
