"""Flags, sweeps, and one line for a mistake."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

# Imports once, and forks a process for each line of flags and paths of files.
SERVER = """
import json, os, sys, warnings
from experiments import _main

warnings.filterwarnings('ignore', message='os.fork')
for line in sys.stdin:
  flags, *files = json.loads(line)
  child = os.fork()
  if child:
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
    continue
  for number, file in enumerate(files, 1):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
  sys.argv[1:] = flags
  def run(config, workdir):
    if config.seeds == 9:
      raise FloatingPointError('the loss is nan')
    print(config.seeds, config.base.steps, list(config.methods), workdir)
  _main.main('merge_vision', run)
"""

CONFIG = """
from configs import merge_vision

def get_config(variant='tiny'):
  return merge_vision.get_config(variant)

def sweep():
  return [{'seeds': 1}, {'seeds': 2, 'base.steps': 7}]
"""


@pytest.fixture(scope='module')
def launch(tmp_path_factory):
  """Returns a function that runs a stub of an experiment with given flags."""
  folder = tmp_path_factory.mktemp('launch')
  files = [folder / name for name in ('stdout', 'stderr')]
  server = subprocess.Popen(
    [sys.executable, '-c', SERVER],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )

  def run(*flags):
    print(json.dumps([flags, *map(str, files)]), file=server.stdin, flush=True)
    returncode = int(server.stdout.readline())
    stdout, stderr = [file.read_text() for file in files]
    return SimpleNamespace(returncode=returncode, stdout=stdout, stderr=stderr)

  with server:
    yield run


def start(module, *flags):
  """Runs an experiment with given flags."""
  return subprocess.run(
    [sys.executable, '-m', module, *flags],
    capture_output=True,
    text=True,
    timeout=60,
  )


def test_fields_are_overridden_by_flags(launch):
  done = launch(
    '--config=configs/merge_vision.py:tiny',
    '--config.seeds=3',
    "--config.methods=('mean','ties')",
    '--workdir=there',
  )
  assert done.stdout.splitlines() == [
    'merge_vision tiny in there',
    "3 40 ['mean', 'ties'] there",
  ]
  assert done.returncode == 0


def test_a_changed_config_has_its_own_default_folder(launch):
  plain = launch('--config=configs/merge_vision.py:tiny').stdout.split()[-1]
  other = launch(
    '--config=configs/merge_vision.py:tiny', '--config.seeds=3'
  ).stdout.split()[-1]
  assert plain == 'results/merge_vision/tiny'
  assert other.startswith('results/merge_vision/tiny-')


def test_a_sweep_runs_every_entry_in_its_own_folder(launch, tmp_path):
  file = tmp_path / 'config.py'
  file.write_text(CONFIG)
  flags = (f'--config={file}:tiny', f'--workdir={tmp_path}/out')
  lines = launch(*flags, '--sweep').stdout.splitlines()[1::2]
  assert [line.split()[:2] for line in lines] == [['1', '40'], ['2', '7']]
  assert lines[0].endswith('out/seeds=1')
  assert lines[1].endswith('out/seeds=2,base.steps=7')
  one = launch(*flags, '--sweep_index=1').stdout.splitlines()
  assert one[1:] == lines[1:]
  assert launch(*flags, '--sweep_shard=1/2').stdout.splitlines() == one
  bad = launch(*flags, '--sweep_index=2')
  assert bad.stderr == ('error: sweep_index=2: the sweep has entries 0 .. 1\n')


def test_an_entry_that_diverges_is_recorded_and_the_others_run(
  launch, tmp_path
):
  file = tmp_path / 'config.py'
  file.write_text(CONFIG.replace("'seeds': 1", "'seeds': 9"))
  flags = f'--config={file}:tiny', f'--workdir={tmp_path}/out', '--sweep'
  done = launch(*flags)
  assert done.returncode == 0
  lines = done.stdout.splitlines()
  assert lines[1] == 'failed: the loss is nan'
  assert lines[3].startswith('2 7 ')
  assert lines[-1] == f'1 of 2 entries are in {tmp_path}/out, 1 failed'
  record = json.loads((tmp_path / 'out/seeds=9/record.json').read_text())
  assert record['failed'] == 'the loss is nan'


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--config=configs/merge_vision.py:tniy'], "no variant 'tniy' (did"),
    (
      ['--config.sedes=3'],
      "--config.sedes: no field 'sedes' in config (did you mean 'seeds'?)",
    ),
    (
      ['--config.arguments.kalman.rate=0.5'],
      "--config.arguments.kalman.rate: no field 'kalman' in config.arguments: "
      'it has breadcrumbs, by_depth, consensus, dare,',
    ),
    (
      ['--config.arguments.ties.densty=0.5'],
      "no field 'densty' in config.arguments.ties (did you mean 'density'?)",
    ),
    (['--config.seeds.x=1'], "config.seeds is 5 and has no field 'x'"),
    (['--config=configs/none.py'], 'configs/none.py'),
    (['--confg=configs/merge_vision.py'], "Unknown command line flag 'confg'"),
    (['--config.seeds=many'], 'many'),
    (['tiny'], "'tiny' is no flag"),
    (['--mesh=candidates:64'], '64 needs 64 devices, there'),
    (['--mesh=candidates'], "expected text such as 'candidates:2,model:4'"),
    (['--sweep_shard=3/2'], 'sweep_shard=3/2: expected i/n, shard i of n'),
    (['--sweep_shard=0/2', '--sweep_index=1'], 'give one of them'),
  ],
)
def test_a_mistake_in_the_flags_is_one_line(launch, flags, message):
  done = launch(*flags)
  assert done.returncode != 0
  assert message in done.stderr
  assert done.stderr.startswith('error: ')
  assert done.stderr.count('\n') == 1


def test_a_mistake_in_the_config_is_one_line():
  done = start(
    'experiments.merge_vision',
    '--config=configs/merge_vision.py:tiny',
    "--config.methods=('mean','tise')",
    '--workdir=/nowhere/to/be/written',
  )
  assert done.returncode != 0
  assert done.stderr.count('\n') == 1
  assert "(did you mean 'ties'?)" in done.stderr


def test_help_shows_the_question_the_variants_and_the_flags():
  done = start('experiments.merge_vision', '--help')
  assert done.returncode == 0
  for text in ('Which merge of task experts', 'suite8', '--workdir', '--sweep'):
    assert text in done.stdout
