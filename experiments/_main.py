"""The command line of every experiment.

``python -m experiments.NAME --config=configs/NAME.py:VARIANT``, with
``--config.FIELD=VALUE`` to change a field and ``--workdir=DIR`` for the folder.
"""

from collections.abc import Sequence
import copy
import functools
import hashlib
import importlib.util
import pathlib
import sys
from types import ModuleType
from typing import Any, NoReturn

from absl import app, flags, logging
import ml_collections
from ml_collections import config_flags

from experiments._run import console, experiment
from wsl import tree

_CONFIG = 'config'
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder of the run; finished parts there are not computed again. '
  'Default: results/EXPERIMENT/VARIANT, with a hash if fields were changed.',
)
_SWEEP = flags.DEFINE_bool(
  'sweep', False, "Run every entry of the config's sweep(), one by one."
)
_SWEEP_INDEX = flags.DEFINE_integer(
  'sweep_index', None, "Run one entry of the config's sweep(): for array jobs."
)
_TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show where in the code an error was raised.'
)


def main(name: str, run: experiment.Run) -> None:
  """Reads the flags and runs an experiment.

  Args:
    name: of the file of the experiment, and of its config.
    run: maps (config, workdir) to a record.
  """
  logging.set_verbosity(logging.WARNING)
  parse = functools.partial(_parse, name)
  app.run(lambda _: launch(name, run), flags_parser=parse)


def launch(name: str, run: experiment.Run) -> None:
  """Runs the jobs of the parsed flags; an error is printed as one line."""
  try:
    for config, workdir in jobs(name):
      console.say(f'{name} {config.variant} in {workdir}')
      run(config, workdir)
  except (ValueError, FileNotFoundError, FloatingPointError) as error:
    if _TRACEBACK.value or '\n' in str(error):
      raise
    _stop(str(error))


def jobs(name: str) -> list[tuple[ml_collections.ConfigDict, str]]:
  """Returns the (config, workdir) pairs of the parsed flags.

  Args:
    name: of the experiment.

  Returns:
    One pair, or one for each entry of the config's ``sweep()``.

  Raises:
    ValueError: if the sweep has no such entry.
  """
  flag: Any = flags.FLAGS[_CONFIG]
  config, file = flag.value, flag.config_filename.partition(':')[0]
  changed = flag.override_values
  if not _SWEEP.value and _SWEEP_INDEX.value is None:
    return [(config, _WORKDIR.value or _default(name, config, changed))]
  entries = list(_load(file).sweep())
  chosen = range(len(entries))
  if _SWEEP_INDEX.value is not None:
    if _SWEEP_INDEX.value not in chosen:
      raise ValueError(
        f'sweep_index={_SWEEP_INDEX.value}: the sweep has entries 0 .. '
        f'{len(entries) - 1}'
      )
    chosen = range(_SWEEP_INDEX.value, _SWEEP_INDEX.value + 1)
  parent = pathlib.Path(_WORKDIR.value or _default(name, config, changed))
  found = []
  for i in chosen:
    entry = copy.deepcopy(config)
    entry.update_from_flattened_dict(entries[i])
    label = ','.join(f'{k}={v}' for k, v in entries[i].items())
    found.append((entry, str(parent / label)))
  return found


def _default(
  name: str, config: ml_collections.ConfigDict, changed: dict[str, Any]
) -> str:
  """Returns the default folder, with a hash of the changed fields."""
  place = pathlib.Path('results', name, config.variant)
  if not changed:
    return str(place)
  mark = hashlib.sha256(repr(sorted(changed.items())).encode()).hexdigest()
  return f'{place}-{mark[:6]}'


def _load(file: str) -> ModuleType:
  """Imports a file of configs."""
  spec = importlib.util.spec_from_file_location('config_module', file)
  if spec is None or spec.loader is None:
    raise ValueError(f'{file} is not a Python file')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _parse(name: str, argv: Sequence[str]) -> list[str]:
  """Parses flags; an error, also inside a config, is printed as one line."""
  file = pathlib.Path(__file__).parents[1] / 'configs' / f'{name}.py'
  if {'--help', '-help', '-h'} & set(argv):
    _help(file)
  try:
    config_flags.DEFINE_config_file(_CONFIG, str(file), 'FILE:VARIANT')
    rest = flags.FLAGS(argv)
    flag: Any = flags.FLAGS[_CONFIG]
    list(flag.value)  # raises if there is no such file
  except (flags.Error, AttributeError, KeyError, OSError, TypeError) as error:
    if '--traceback' in argv:
      raise
    _stop(_unknown_field(str(file), argv) or _last_line(error))
  if len(rest) > 1:
    _stop(f"'{rest[1]}' is no flag: flags begin with --, see --help")
  return rest


def _unknown_field(default: str, argv: Sequence[str]) -> str | None:
  """Describes the first flag of a field that the config does not have.

  Args:
    default: the config file that is read where no flag names one.
    argv: the command line.

  Returns:
    The message, or None if all fields exist or the config cannot be read.
  """
  pairs = [arg.lstrip('-').partition('=') for arg in argv if arg[:1] == '-']
  chosen = {name: value for name, _, value in pairs}.get(_CONFIG, default)
  file, _, variant = chosen.partition(':')
  try:
    config = _load(file).get_config(*[variant] if variant else [])
  except Exception:  # what is wrong with the config is reported instead
    return None
  for flag, _, _ in pairs:
    name, _, path = flag.partition('.')
    fields = name == _CONFIG and path and '[' not in path
    if fields and (message := _missing(config, path)):
      return f'--{flag}: {message}'
  return None


def _missing(config: Any, path: str) -> str | None:
  """Describes the first part of a dotted path that is not in a config."""
  place = _CONFIG
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


def _last_line(error: Exception) -> str:
  """Returns the last line of an error that contains a traceback."""
  text = str(error).replace('\\n', '\n').strip('"\'\n ')
  lines = [line for line in text.splitlines() if line.strip()]
  return lines[-1].removeprefix('ValueError: ')


def _help(file: pathlib.Path) -> NoReturn:
  """Prints the question, the config's variants, and the flags."""
  parts = [
    sys.modules['__main__'].__doc__,
    f'{file}:\n\n{_load(str(file)).__doc__}',
    flags.FLAGS.module_help(sys.modules[__name__]),
    '  --config.FIELD=VALUE changes a field of the config.',
  ]
  print('\n'.join(str(part).strip('\n') + '\n' for part in parts))
  sys.exit(0)


def _stop(message: str) -> NoReturn:
  sys.exit(f'error: {message}')
