r"""Runs an experiment on all workers of a TPU pod slice, over ssh.

  python -m experiments.launch.tpu_pod --name=v5p --zone=us-east5-a \
    merge_vision --config=configs/merge_vision.py:digits --sweep \
    --mesh=candidates:-1 --workdir=/mnt/shared/sweep

Every worker runs the same command; they find each other by the metadata of the
pod. The checkout is at --repository on every worker (--copy copies this one
there first), with JAX for TPUs installed. --workdir must be on a file system
that all workers share, such as a bucket that is mounted by gcsfuse.
"""

from collections.abc import Sequence
import subprocess

from experiments.launch import _command


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the commands, or runs them one after the other."""
  parser = _command.parser(__doc__)
  parser.add_argument('--name', required=True, help='of the TPU')
  parser.add_argument('--zone', required=True, help='of the TPU')
  parser.add_argument('--project', help='of Google Cloud, if not the default')
  parser.add_argument(
    '--repository', default='weight-space-lab', help='on the workers'
  )
  parser.add_argument(
    '--copy', action='store_true', help='copy this checkout there first'
  )
  given = _command.parse(parser, argv)
  _command.require_workdir(given.flags, 'that all workers share')
  where = [f'--zone={given.zone}', '--worker=all']
  if given.project:
    where.append(f'--project={given.project}')
  vm = ['gcloud', 'compute', 'tpus', 'tpu-vm']
  remote = _command.text(_command.python(given.experiment, given.flags))
  remote = f'cd {_command.text([given.repository])} && {remote}'
  commands = [[*vm, 'ssh', given.name, *where, f'--command={remote}']]
  if given.copy:
    place = f'{given.name}:{given.repository}'
    commands.insert(0, [*vm, 'scp', '--recurse', '.', place, *where])
  for command in commands:
    if given.dry_run:
      print(_command.text(command))
      continue
    try:
      subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
      _command.stop(f'gcloud: {error}')


if __name__ == '__main__':
  main()
