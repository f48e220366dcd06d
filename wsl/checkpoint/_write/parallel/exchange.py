"""Short texts that the processes of a run exchange; all must call together."""

import jax
import numpy as np

_BYTES = 512


def texts(text: str) -> list[str]:
  """Returns the text of each process, of at most 512 bytes."""
  from jax.experimental import multihost_utils

  given = np.frombuffer(text.encode()[:_BYTES], np.uint8)
  padded = np.zeros(_BYTES, np.uint8)
  padded[: len(given)] = given
  found = np.asarray(multihost_utils.process_allgather(padded))
  rows = found.reshape(jax.process_count(), _BYTES)
  return [row.tobytes().rstrip(b'\0').decode(errors='replace') for row in rows]


def agree(error: Exception | None) -> None:
  """Returns if no process has failed; else every process raises.

  Raises:
    Exception: the given one, on the process that has failed.
    RuntimeError: on the others, with the reason.
  """
  reason = ''
  if error is not None:
    lines = str(error).splitlines() or [type(error).__name__]
    reason = lines[0].removeprefix('save: ')
    if isinstance(error, OSError) and error.strerror:
      reason = str(error.strerror).removeprefix('save: ')
  found = texts(reason)
  if error is not None:
    raise error
  for process, text in enumerate(found):
    if text:
      raise RuntimeError(
        f'save: process {process} of {len(found)} failed: {text}'
      )
