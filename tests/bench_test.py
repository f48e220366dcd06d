"""The benchmark of GPUs runs, at tiny sizes on any device."""

import json
import os
import pathlib
import subprocess
import sys

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
