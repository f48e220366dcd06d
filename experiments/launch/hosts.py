r"""Runs an experiment on hosts over ssh: one run of many processes, or shards.

  python -m experiments.launch.hosts --hosts=node0,node1 \
    merge_vision --config=configs/merge_vision.py:digits --sweep \
    --mesh=candidates:-1 --workdir=/shared/sweep

The processes are one run: they find each other by the variables that
``wsl.mesh.start`` reads, and the first host coordinates them. With
--independent each host has its own shard of the sweep, and no process waits for
another. 'localhost' starts a process here, without ssh. The checkout is at
--repository on every host, and --workdir on a file system that all share.
"""

from collections.abc import Sequence
import os
import subprocess
import sys
import threading

from experiments.launch import _command

_LOCAL = ('localhost', '127.0.0.1')


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the commands, or runs them together."""
  parser = _command.parser(__doc__)
  parser.add_argument('--hosts', required=True, help='separated by commas')
  parser.add_argument('--port', type=int, default=8476, help='of the first')
  parser.add_argument(
    '--independent', action='store_true', help='a shard of the sweep for each'
  )
  parser.add_argument(
    '--repository', default='weight-space-lab', help='on remote hosts'
  )
  parser.add_argument('--python', default='python', help='on remote hosts')
  given = _command.parse(parser, argv)
  hosts = [host.strip() for host in given.hosts.split(',')]
  if '' in hosts:
    _command.stop(f'--hosts={given.hosts}: expected names separated by commas')
  remote = [host for host in hosts if host not in _LOCAL]
  if remote and hosts[0] in _LOCAL and not given.independent:
    _command.stop(
      f'--hosts={given.hosts}: {remote[0]} cannot reach {hosts[0]}: name the '
      'first host by an address that all reach'
    )
  if len(hosts) > 1:
    _command.require_workdir(given.flags, 'that all hosts share')
  if given.independent:
    _command.check_unsplit(given.flags)
  commands = []
  for i, host in enumerate(hosts):
    flags, variables = given.flags, {}
    if given.independent:
      flags = _command.of_shard(flags, f'{i}/{len(hosts)}')
    else:
      variables = {
        'JAX_COORDINATOR_ADDRESS': f'{hosts[0]}:{given.port}',
        'JAX_NUM_PROCESSES': str(len(hosts)),
        'JAX_PROCESS_ID': str(i),
      }
    interpreter = sys.executable if host in _LOCAL else given.python
    command = _command.python(given.experiment, flags, interpreter)
    setting = ['env', *(f'{key}={x}' for key, x in variables.items())]
    command = [*(setting if variables else []), *command]
    if host not in _LOCAL:
      place = _command.text([given.repository])
      command = ['ssh', host, f'cd {place} && {_command.text(command)}']
    commands.append(command)
  if given.dry_run:
    print('\n'.join(map(_command.text, commands)))
    return
  codes = run(hosts, commands)
  if any(codes):
    failed = [f'{host} ({code})' for host, code in zip(hosts, codes) if code]
    _command.stop(f'failed on {", ".join(failed)}')


def run(hosts: Sequence[str], commands: Sequence[Sequence[str]]) -> list[int]:
  """Runs commands together, prints their lines, returns their statuses."""
  processes = [
    subprocess.Popen(
      command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for command in commands
  ]

  def show(number: int) -> None:
    stream = processes[number].stdout
    assert stream is not None
    with stream:
      for line in stream:
        print(f'[{number} {hosts[number]}] {line}', end='', flush=True)

  threads = [
    threading.Thread(target=show, args=(i,)) for i in range(len(processes))
  ]
  for thread in threads:
    thread.start()
  try:
    for thread in threads:
      thread.join()
  except KeyboardInterrupt:
    for process in processes:
      process.terminate()
  return [process.wait() for process in processes]


if __name__ == '__main__':
  os.environ.setdefault('PYTHONUNBUFFERED', '1')
  main()
