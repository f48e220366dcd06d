"""What all launchers share: their arguments, and the command of an experiment.

No launcher imports JAX: it starts processes that do.
"""

import argparse
from collections.abc import Sequence
import difflib
import pathlib
import shlex
import sys
from typing import NoReturn

_EXPERIMENTS = pathlib.Path(__file__).parents[1]
_SPLIT = ('--sweep_shard', '--sweep_index')


class Parser(argparse.ArgumentParser):
  """Prints an error as one line."""

  def error(self, message: str) -> NoReturn:
    """Ends the launcher."""
    stop(message)


def stop(message: str) -> NoReturn:
  """Ends the launcher with one line."""
  sys.exit(f'error: {message}')


def parser(description: str | None) -> Parser:
  """Returns a parser of ``--dry_run``, the experiment and its flags."""
  found = Parser(
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  found.add_argument(
    '--dry_run', action='store_true', help='print what would run, and stop'
  )
  found.add_argument('experiment', help='such as merge_vision')
  found.add_argument(
    'flags', nargs=argparse.REMAINDER, help='of the experiment'
  )
  return found


def parse(
  arguments: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
  """Parses the command line, and checks the experiment and the jobs."""
  found = arguments.parse_args(argv)
  names = sorted(
    path.stem for path in _EXPERIMENTS.glob('*.py') if path.stem[0] != '_'
  )
  if found.experiment not in names:
    near = difflib.get_close_matches(found.experiment, names, 1)
    hint = f" (did you mean '{near[0]}'?)" if near else ''
    stop(f"no experiment '{found.experiment}'{hint}: {', '.join(names)}")
  jobs = getattr(found, 'jobs', 1)
  if jobs < 1:
    stop(f'--jobs={jobs}: expected 1 or more')
  if jobs > 1:
    check_unsplit(found.flags)
  return found


def check_unsplit(flags: Sequence[str]) -> None:
  """Refuses flags that the launcher gives to each job itself."""
  for flag in flags:
    if flag.startswith(_SPLIT):
      stop(f'{flag}: the launcher gives each job its shard: leave it out')


def require_workdir(flags: Sequence[str], reason: str) -> None:
  """Refuses a run of several machines without a folder that they share."""
  if not any(flag.startswith('--workdir') for flag in flags):
    stop(f'--workdir is missing: give a folder {reason}')


def of_shard(flags: Sequence[str], shard: str) -> list[str]:
  """Returns the flags of one job of a sweep; ``shard`` is ``'i/n'``."""
  return [*(f for f in flags if f != '--sweep'), f'--sweep_shard={shard}']


def python(
  experiment: str, flags: Sequence[str], interpreter: str = 'python'
) -> list[str]:
  """Returns the command that runs an experiment."""
  return [interpreter, '-m', f'experiments.{experiment}', *flags]


def text(command: Sequence[str]) -> str:
  """Returns a command as a line for a shell."""
  return shlex.join(command)
