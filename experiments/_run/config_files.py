"""Files of configs, and messages about flags of fields that they lack."""

from collections.abc import Sequence
import importlib.util
from types import ModuleType
from typing import Any

import ml_collections

from wsl import tree


def load(file: str) -> ModuleType:
  """Imports a file of configs."""
  spec = importlib.util.spec_from_file_location('config_module', file)
  if spec is None or spec.loader is None:
    raise ValueError(f'{file} is not a Python file')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def unknown_field(
  config_flag: str, default: str, argv: Sequence[str]
) -> str | None:
  """Describes the first flag of a field that the config does not have.

  Args:
    config_flag: the name of the flag of the config.
    default: the config file that is read where no flag names one.
    argv: the command line.

  Returns:
    The message, or None if all fields exist or the config cannot be read.
  """
  pairs = [arg.lstrip('-').partition('=') for arg in argv if arg[:1] == '-']
  chosen = {name: value for name, _, value in pairs}.get(config_flag, default)
  file, _, variant = chosen.partition(':')
  try:
    config = load(file).get_config(*[variant] if variant else [])
  except Exception:  # what is wrong with the config is reported instead
    return None
  for flag, _, _ in pairs:
    name, _, path = flag.partition('.')
    fields = name == config_flag and path and '[' not in path
    if fields and (message := _missing(config, path, name)):
      return f'--{flag}: {message}'
  return None


def _missing(config: Any, path: str, place: str) -> str | None:
  """Describes the first part of a dotted path that is not in a config."""
  for part in path.split('.'):
    if not isinstance(config, ml_collections.ConfigDict):
      return f"{place} is {config!r} and has no field '{part}'"
    if part not in config:
      hint = tree.nearest(part, list(config))
      return (
        f"no field '{part}' in {place}{hint}: it has "
        f'{", ".join(sorted(config))}; a flag changes fields, a config file '
        'may add some'
      )
    config, place = config[part], f'{place}.{part}'
  return None


def last_line(error: Exception) -> str:
  """Returns the last line of an error that contains a traceback."""
  text = str(error).replace('\\n', '\n').strip('"\'\n ')
  lines = [line for line in text.splitlines() if line.strip()]
  return lines[-1].removeprefix('ValueError: ')
