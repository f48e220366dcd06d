"""The tests of doors, merges and checkpoints, once more as users run JAX."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
# test_two_processes and its like start processes with settings of their own.
FILES = (
  *('tests/deltas_test.py', 'tests/leaves/dtypes_test.py'),
  *('tests/merge/contract_test.py', 'tests/merge/property_test.py'),
  *('tests/merge/matrices_test.py', 'tests/stitch/settings_test.py'),
  *('tests/checkpoint', '--ignore=tests/checkpoint/processes_test.py'),
  # Locks, kills and headers are bytes, whatever JAX's settings are.
  '--ignore=tests/checkpoint/saving',
  '--ignore=tests/checkpoint/fuzz_test.py',
  *('tests/leaves/wide_test.py', 'tests/stats/leaf_statistics_test.py'),
  *('tests/merge/factors_test.py', 'tests/adapters/compress_test.py'),
  'tests/surgery/nested_settings_test.py',
  *('tests/codecs/masks_test.py', 'tests/codecs/file_test.py'),
  'tests/surgery/experts_settings_test.py',
  'tests/surgery/program_settings_test.py',
  'tests/arguments_test.py',
)


def test_values_hold_with_the_defaults_of_jax() -> None:
  """The settings are those of a process, so the tests run in another one."""
  command = [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', *FILES]
  given = os.environ | {'WSL_TEST_DEFAULTS': '1'}
  run = subprocess.run(
    command, cwd=ROOT, env=given, capture_output=True, text=True, check=False
  )
  assert not run.returncode, run.stdout[-8000:] + run.stderr[-2000:]
