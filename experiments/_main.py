"""The command line of every experiment.

``python -m experiments.NAME --config=configs/NAME.py:VARIANT``, with
``--config.FIELD=VALUE`` to change a field and ``--workdir=DIR`` for the folder.
"""

from collections.abc import Sequence
import functools
import hashlib
import json
import pathlib
import sys
from typing import Any, NoReturn

from absl import app, flags, logging
import jax
import ml_collections
from ml_collections import config_flags

from experiments._run import (
  config_files,
  console,
  experiment,
  summaries,
  sweeps,
)
from experiments._run import entries as entries_lib
from wsl import mesh as mesh_lib

_CONFIG = 'config'
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder of the run; finished parts there are not computed again. '
  'Default: results/EXPERIMENT/VARIANT, with a hash if fields were changed.',
)
_SWEEP = flags.DEFINE_bool(
  'sweep',
  False,
  "Run every entry of the config's sweep(). Those that differ only in numbers "
  'are one compiled call if the experiment can be traced in them.',
)
_SWEEP_INDEX = flags.DEFINE_integer(
  'sweep_index', None, "Run one entry of the config's sweep(): for array jobs."
)
_SWEEP_SHARD = flags.DEFINE_string(
  'sweep_shard',
  None,
  "i/n: run the i-th of n parts of the config's sweep(), from 0.",
)
_PARTS = (_SWEEP_INDEX, _SWEEP_SHARD)
_MESH = flags.DEFINE_string(
  'mesh',
  None,
  'Axes of devices: candidates:8, or candidates:2,model:4. Runs and recipes '
  'are mapped over candidates, parameters are sharded over the others.',
)
_TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show where in the code an error was raised.'
)


def main(
  name: str, run: experiment.Run, door: sweeps.Door | None = None
) -> None:
  """Reads the flags and runs an experiment.

  Args:
    name: of the file of the experiment, and of its config.
    run: maps (config, workdir) to a record.
    door: how the points of a sweep are computed together, or None.
  """
  logging.set_verbosity(logging.WARNING)
  parse = functools.partial(_parse, name)
  app.run(lambda _: launch(name, run, door), flags_parser=parse)


def launch(
  name: str, run: experiment.Run, door: sweeps.Door | None = None
) -> None:
  """Runs the jobs of the parsed flags; an error is printed as one line."""
  flag: Any = flags.FLAGS[_CONFIG]
  config: ml_collections.ConfigDict = flag.value
  try:
    chosen = {f.name: f.value for f in (_MESH, _SWEEP, *_PARTS)}
    agreed = {**json.loads(config.to_json()), 'flags': chosen}
    processes = mesh_lib.start(config=agreed)
    if processes.processes > 1:
      print(processes, flush=True)
    mesh = None if _MESH.value is None else mesh_lib.make(_MESH.value)
    folder = _WORKDIR.value or _default(name, config, flag.override_values)
    if _sweeps():
      _sweep(name, run, door, config, folder, mesh)
    else:
      console.say(f'{name} {config.variant} in {folder}')
      _run(run, config, folder, mesh)
  except (ValueError, FileNotFoundError, FloatingPointError) as error:
    # A process that fails alone has to end the others with its reason.
    several = jax.process_count() > 1
    if _TRACEBACK.value or several or '\n' in str(error):
      raise
    _stop(str(error))


def _run(
  run: experiment.Run,
  config: ml_collections.ConfigDict,
  workdir: str,
  mesh: jax.sharding.Mesh | None,
) -> None:
  """Runs an experiment, with a mesh if there is one."""
  run(config, workdir, **({} if mesh is None else {'mesh': mesh}))


def _sweeps() -> bool:
  """Returns whether a flag asks for the sweep."""
  given = [part.value is not None for part in _PARTS]
  if all(given):
    raise ValueError('sweep_index and sweep_shard: give one of them')
  return _SWEEP.value or any(given)


def _sweep(
  name: str,
  run: experiment.Run,
  door: sweeps.Door | None,
  config: ml_collections.ConfigDict,
  folder: str,
  mesh: jax.sharding.Mesh | None,
) -> None:
  """Runs the chosen entries of the config's sweep, and summarises all."""
  flag: Any = flags.FLAGS[_CONFIG]
  file = flag.config_filename.partition(':')[0]
  every = entries_lib.read(file, config, folder)
  chosen, mine = range(len(every)), folder
  if _SWEEP_INDEX.value is not None:
    if _SWEEP_INDEX.value not in chosen:
      raise ValueError(
        f'sweep_index={_SWEEP_INDEX.value}: the sweep has entries 0 .. '
        f'{len(every) - 1}'
      )
    chosen = range(_SWEEP_INDEX.value, _SWEEP_INDEX.value + 1)
    mine = f'{folder}/job{_SWEEP_INDEX.value}'
  elif _SWEEP_SHARD.value is not None:
    chosen = entries_lib.share(_SWEEP_SHARD.value, len(every))
    mine = f'{folder}/job{_SWEEP_SHARD.value.replace("/", "of")}'
  numbers = door.numbers if door else ()
  for group in entries_lib.groups([every[i] for i in chosen], numbers):
    if door and group.numbers[0]:
      sweeps.run_group(name, door, config, group, mine, mesh)
    else:
      (entry,) = group.entries
      console.say(f'{name} {config.variant} in {entry.workdir}')
      try:
        _run(run, entry.config, entry.workdir, mesh)
      except FloatingPointError as error:  # of this entry only
        values = {'failed': str(error)}
        sweeps.save(name, entry.config, entry.workdir, mesh, values)
        console.say(f'failed: {error}')
  metrics = door.metrics if door else lambda record: {}
  title = f'{name} {config.variant}, sweep'
  summaries.write(title, pathlib.Path(folder), every, metrics)


def _default(
  name: str, config: ml_collections.ConfigDict, changed: dict[str, Any]
) -> str:
  """Returns the default folder, with a hash of the changed fields."""
  place = pathlib.Path('results', name, config.variant)
  if not changed:
    return str(place)
  mark = hashlib.sha256(repr(sorted(changed.items())).encode()).hexdigest()
  return f'{place}-{mark[:6]}'


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
    _stop(
      config_files.unknown_field(_CONFIG, str(file), argv)
      or config_files.last_line(error)
    )
  if len(rest) > 1:
    _stop(f"'{rest[1]}' is no flag: flags begin with --, see --help")
  return rest


def _help(file: pathlib.Path) -> NoReturn:
  """Prints the question, the config's variants, and the flags."""
  parts = [
    sys.modules['__main__'].__doc__,
    f'{file}:\n\n{config_files.load(str(file)).__doc__}',
    flags.FLAGS.module_help(sys.modules[__name__]),
    '  --config.FIELD=VALUE changes a field of the config.',
  ]
  print('\n'.join(str(part).strip('\n') + '\n' for part in parts))
  sys.exit(0)


def _stop(message: str) -> NoReturn:
  sys.exit(f'error: {message}')
