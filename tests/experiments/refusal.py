"""What every experiment owes to a mistake in its config."""

import re

import pytest


def check(run, config, changes, message, workdir):
  """Changes a config; the run must refuse it in one line, before any work."""
  with config.unlocked():
    for field, value in changes.items():
      *parents, last = field.split('.')
      node = config
      for parent in parents:
        node = node[parent]
      if isinstance(value, dict) and last in node:
        del node[last]
      node[last] = value
  with pytest.raises((ValueError, FileNotFoundError)) as error:
    run(config, str(workdir))
  text = str(error.value)
  assert re.search(message, text), text
  assert '\n' not in text
  assert not workdir.exists()
