"""The benchmark of GPUs runs, at tiny sizes; that of checkpoints judges."""

import json
import os
import pathlib
import subprocess
import sys

from tests.bench._checkpoints import report

ROOT = pathlib.Path(__file__).parents[1]
SECTIONS = ('speed', 'spectral', 'products', 'matching', 'recipes', 'equal')


def test_the_benchmark_of_gpus_runs(tmp_path: pathlib.Path) -> None:
  command = [sys.executable, 'tests/bench/gpu.py', '--small']
  run = subprocess.run(
    [*command, f'--out={tmp_path}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
    env=os.environ | {'JAX_ENABLE_X64': 'false'},
  )
  assert not run.returncode, run.stdout[-3000:] + run.stderr[-3000:]
  assert 'failed to run: none' in run.stdout
  for section in SECTIONS:
    lines = (tmp_path / f'{section}.jsonl').read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r['name'] for r in records[:2]] == ['device', 'versions']
    assert len(records) > 2
    # Sizes are too small for times to be judged; differences are.
    assert all(r['ok'] is None for r in records if r['unit'] in ('s', 'x'))
    if section != 'equal':
      assert not [r for r in records if r['ok'] is False]


def test_a_section_that_fails_does_not_end_the_others(
  tmp_path: pathlib.Path,
) -> None:
  command = [sys.executable, 'tests/bench/gpu.py', f'--out={tmp_path}']
  run = subprocess.run(
    [*command, '--only=equal,matching', '--budget_s=4'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 1
  assert run.stdout.count('FAILED to run: no time left') == 2
  assert 'failed to run: equal, matching' in run.stdout


def test_the_benchmark_of_checkpoints_marks_what_misses() -> None:
  run = lambda seconds, mib, **rest: {
    'seconds': seconds, 'mib': mib, 'cpu': seconds, **rest
  }  # fmt: skip
  rounds = [
    {
      'import': run(0.5, 150),
      'floor': run(floor, 10),
      'wsl': run(2.5, 200, planned=planned),
      'mergekit': run(mergekit, 1000),
    }
    for floor, planned, mergekit in [(1, 210, 9), (2, 250, 20), (1.5, 220, 15)]
  ]
  row = report.row('linear', [*rounds, {x: rounds[0][x] for x in rounds[0]}])
  assert (row['pairs'], row['memory']) == (4, 5.0)
  row = report.row('linear', rounds)
  assert (row['faster'], row['over_floor'], row['planned']) == (6.0, 1.33, 1.1)
  assert report.table([row]).endswith('PASS: all as expected')
  other = report.row('ties_leaf', rounds)
  slow = row | {'method': 'ties_global', 'wsl_seconds': 4.0, 'planned': 0.8}
  lines = report.table([row, other, slow]).splitlines()
  assert '6.0 (>12)!' in lines[3]
  assert lines[-3:] == [
    'MISS ties_leaf: faster is 6.0, expected 12',
    'MISS ties_global: planned / used memory is 0.8',
    'MISS ties_global: 1.60 times that for each tensor, expected 1.5',
  ]
