r"""Submits an experiment to SLURM: one run, or an array of sweep shards.

  python -m experiments.launch.slurm --jobs=8 --gpus=1 --time=04:00:00 \
    merge_vision --config=configs/merge_vision.py:digits --workdir=results/sweep

With --jobs=N the sweep of the config is an array of N jobs, each with
--sweep_shard=i/N. A job of several tasks (--nodes, --tasks) is one run of as
many processes, which find each other by the variables of SLURM; give it a
--mesh. The folder of the run must be on a file system that all nodes share.
"""

from collections.abc import Sequence
import os
import shlex
import subprocess

from experiments.launch import _command

_SHARD = '"$SLURM_ARRAY_TASK_ID"'


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the script, or submits it."""
  parser = _command.parser(__doc__)
  parser.add_argument('--jobs', type=int, default=1, help='of the array')
  parser.add_argument('--nodes', type=int, default=1, help='of each job')
  parser.add_argument('--tasks', type=int, default=1, help='on each node')
  parser.add_argument('--gpus', type=int, default=0, help='of each task')
  parser.add_argument('--time', default='04:00:00', help='limit of each job')
  parser.add_argument(
    '--sbatch', action='append', default=[], help='a further option, repeatable'
  )
  given = _command.parse(parser, argv)
  lines = script(given)
  if given.dry_run:
    print(lines)
    return
  try:
    subprocess.run(['sbatch'], input=lines, text=True, check=True)
  except (OSError, subprocess.CalledProcessError) as error:
    _command.stop(f'sbatch: {error}')


def script(given: object) -> str:
  """Returns the batch script."""
  options = vars(given)
  name, flags = options['experiment'], options['flags']
  rows = [f'--job-name={name}', f'--nodes={options["nodes"]}']
  rows.append(f'--ntasks-per-node={options["tasks"]}')
  if options['gpus']:
    rows.append(f'--gpus-per-task={options["gpus"]}')
  rows.append(f'--time={options["time"]}')
  command = _command.text(_command.python(name, flags))
  log = '%j'
  if options['jobs'] > 1:
    rows.append(f'--array=0-{options["jobs"] - 1}')
    kept = [flag for flag in flags if flag != '--sweep']
    command = _command.text(_command.python(name, kept))
    command += f' --sweep_shard={_SHARD}/{options["jobs"]}'
    log = '%A_%a'
  rows.append(f'--output=slurm-{log}.log')
  rows += [f'--{option.removeprefix("--")}' for option in options['sbatch']]
  return '\n'.join(
    [
      '#!/bin/bash',
      *(f'#SBATCH {row}' for row in rows),
      f'cd {shlex.quote(os.getcwd())}',
      f'srun --kill-on-bad-exit=1 {command}',
    ]
  )


if __name__ == '__main__':
  main()
