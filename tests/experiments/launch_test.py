"""What each launcher would run, word by word, and its mistakes in one line."""

import importlib
import os
import shlex
import subprocess
import sys

import pytest

from experiments.launch import hosts, slurm

SWEEP = 'merge_vision --sweep --workdir=/s'
PYTHON = 'python -m experiments.merge_vision'
RUNS = [
  (
    f'slurm --jobs=8 --tasks=2 --gpus=1 --sbatch=account=a {SWEEP}',
    f"""#!/bin/bash
#SBATCH --job-name=merge_vision
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --gpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --array=0-7
#SBATCH --output=slurm-%A_%a.log
#SBATCH --account=a
cd {shlex.quote(os.getcwd())}
srun --kill-on-bad-exit=1 {PYTHON} --workdir=/s """
    """--sweep_shard="$SLURM_ARRAY_TASK_ID"/8
""",
  ),
  (
    f'tpu_pod --name=v5p --zone=z --copy {SWEEP} --mesh=candidates:-1',
    f"""gcloud compute tpus tpu-vm scp --recurse . v5p:weight-space-lab \
--zone=z --worker=all
gcloud compute tpus tpu-vm ssh v5p --zone=z --worker=all \
'--command=cd weight-space-lab && {PYTHON} --sweep --workdir=/s \
--mesh=candidates:-1'
""",
  ),
  (
    f'hosts --hosts=a,b {SWEEP}',
    ''.join(
      "ssh {} 'cd weight-space-lab && env JAX_COORDINATOR_ADDRESS=a:8476 "
      f'JAX_NUM_PROCESSES=2 JAX_PROCESS_ID={i} {PYTHON} --sweep '
      "--workdir=/s'\n".format(host)
      for i, host in enumerate('ab')
    ),
  ),
  (
    f'hosts --hosts=localhost,b --independent {SWEEP}',
    f"""{sys.executable} -m experiments.merge_vision --workdir=/s \
--sweep_shard=0/2
ssh b 'cd weight-space-lab && {PYTHON} --workdir=/s --sweep_shard=1/2'
""",
  ),
  (
    f'xmanager --jobs=2 --accelerator=t4:1 {SWEEP}',
    f"""{PYTHON} --workdir=/s --sweep_shard=0/2  # t4:1
{PYTHON} --workdir=/s --sweep_shard=1/2  # t4:1
""",
  ),
]


def launch(line: str) -> None:
  name, *rest = line.split()
  importlib.import_module(f'experiments.launch.{name}').main(rest)


@pytest.mark.parametrize(
  ('line', 'wanted'), RUNS, ids=[line.partition(' --h')[0] for line, _ in RUNS]
)
def test_a_dry_run_prints_what_would_run(
  line: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
  launch(line.replace('merge_vision', '--dry_run merge_vision'))
  assert capsys.readouterr().out == wanted


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('slurm merge_visio', "no experiment 'merge_visio' .did you mean 'merge_v"),
    ('slurm --jobs=0 merge_vision', '--jobs=0: expected 1 or more'),
    ('slurm --jobz=2 merge_vision', 'unrecognized arguments: --jobz=2'),
    ('slurm', 'arguments are required: experiment, flags'),
    (
      f'slurm --jobs=2 {SWEEP} --sweep_index=1',
      '--sweep_index=1: the launcher',
    ),
    ('tpu_pod --zone=z merge_vision', 'arguments are required: --name'),
    ('tpu_pod --name=a --zone=z merge_vision', 'a folder that all workers sh'),
    ('hosts --hosts=a,b merge_vision', '--workdir is missing: give a folder'),
    (f'hosts --hosts=a,,b {SWEEP}', 'expected names separated by commas'),
    (f'hosts --hosts=localhost,b {SWEEP}', 'b cannot reach localhost: name'),
    (f'xmanager --accelerator=t4 {SWEEP}', 'expected name:count, such as t4:1'),
    (f'xmanager {SWEEP}', 'xmanager is not installed: pip install xmanager'),
  ],
)
def test_a_mistake_is_one_line(line: str, message: str) -> None:
  with pytest.raises(SystemExit, match=message) as error:
    launch(line)
  assert str(error.value).startswith('error: ')
  assert '\n' not in str(error.value)


def test_lines_of_hosts_are_marked_and_statuses_returned(
  capsys: pytest.CaptureFixture[str],
) -> None:
  commands = [['sh', '-c', f'echo {i}; exit {i}'] for i in (0, 3)]
  assert hosts.run(['a', 'b'], commands) == [0, 3]
  lines = capsys.readouterr().out.splitlines()
  assert sorted(lines) == ['[0 a] 0', '[1 b] 3']


def test_a_script_that_is_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
  given = {}
  monkeypatch.setattr(
    subprocess, 'run', lambda command, **options: given.update(options)
  )
  slurm.main(['merge_vision', '--workdir=a b'])
  last = given['input'].splitlines()[-1]
  assert last == f"srun --kill-on-bad-exit=1 {PYTHON} '--workdir=a b'"
