"""Processes with a time limit, which end together with those they started."""

from collections.abc import Sequence
import os
import pathlib
import signal
import subprocess
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[3]


def run(
  command: Sequence[str], *, limit: float, given: dict[str, str], **options: Any
) -> int | None:
  """Returns the exit code, or None if the process was ended at its limit.

  Args:
    command: the program and its arguments, started at the root.
    limit: seconds.
    given: environment variables, beside those of this process.
    **options: of ``subprocess.Popen``.
  """
  process = subprocess.Popen(
    command,
    cwd=ROOT,
    env=os.environ | given,
    start_new_session=True,  # a group of its own
    **options,
  )
  try:
    return process.wait(limit)
  except subprocess.TimeoutExpired:
    return None
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
